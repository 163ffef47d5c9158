"""The way in, for ``zmesh`` and for ``python -m zmesh``: it imports the command line, and takes Ctrl-C meanwhile.

The imports take a third of a second, in which Python would answer Ctrl-C with a traceback of them. From then on the
command line answers for itself.
"""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""The exit status of what Ctrl-C ended, as shells have it: 128 and the number of SIGINT."""


def main() -> None:
    """The console script."""
    try:
        from zmesh.cli import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
