"""Entry point of ``zmesh`` and ``python -m zmesh``: imports the command line, and handles Ctrl-C until that is loaded.

The imports take a third of a second, during which Python would answer Ctrl-C with a traceback. After that, the command
line handles Ctrl-C itself.
"""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""Exit status after Ctrl-C, by shell convention: 128 plus the number of SIGINT."""


def main() -> None:
    """The console script."""
    try:
        from zmesh.cli import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
