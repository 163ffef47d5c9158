"""Entry point of ``zmesh`` and ``python -m zmesh``: imports the command line, and handles signals until that is loaded.

The imports take a third of a second, during which Python would answer Ctrl-C with a traceback. After that, the command
line handles Ctrl-C itself. In a container, a node starts for a second or more before it handles SIGTERM: see ``main``.
"""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED, TERMINATED = 130, 143
"""Exit statuses after Ctrl-C and SIGTERM, by shell convention: 128 plus the number of the signal."""
FIRST = 1
"""The process id of a container's only program."""


def main() -> None:
    """The console script."""
    if os.getpid() == FIRST:
        # The kernel delivers to process 1 only signals that it handles. Without this, a stop during the imports would
        # be ignored, and the container killed when its time is over.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TERMINATED))
    try:
        from zmesh.cli import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
