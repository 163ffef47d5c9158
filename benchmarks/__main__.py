"""Runs benchmarks in turn, at their usual size: ``python -m benchmarks [NAME ...] [--json]``; without a name, all.

Options of a single benchmark (sizes, where to plot) are passed to it directly: ``python -m benchmarks.NAME --help``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

NAMES = ("one_hop", "flood", "propagation", "footprint", "simulate", "discovery", "membership")


def main() -> int:
    """Run each in its own interpreter. The exit status is 1 if any of them could not be measured."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=f"Benchmarks in turn: {', '.join(NAMES)}.")
    parser.add_argument("names", metavar="NAME", nargs="*", type=_name, help="which ones (all)")
    parser.add_argument("--json", action="store_true", help="print a list of their reports as JSON, once all are done")
    options = parser.parse_args()
    failed, reports = [], []
    for name in options.names or NAMES:
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if options.json:
            done = subprocess.run([*command, "--json"], check=False, stdout=subprocess.PIPE)
            reports += [json.loads(done.stdout)] if not done.returncode else []
        else:
            done = subprocess.run(command, check=False)
            print(flush=True)
        failed += [name] if done.returncode else []
    if options.json:
        print(json.dumps(reports, indent=2))
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def _name(text: str) -> str:
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(NAMES)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
