"""All benchmarks in turn: ``python -m benchmarks [--json]``. Each alone: ``python -m benchmarks.NAME --help``."""

from __future__ import annotations

import subprocess
import sys

NAMES = ("one_hop", "flood", "propagation", "footprint", "simulate", "discovery", "membership")


def main() -> int:
    """Run each in an interpreter of its own; what is given on the command line is handed on."""
    failed = []
    for name in NAMES:
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=False)
        print(flush=True)
        failed += [name] if done.returncode else []
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
