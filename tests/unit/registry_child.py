"""A worker that does as it is told: run with a folder of plans, it takes the first and acts it out.

A plan is a msgpack list of steps: ``["raw", bytes]`` writes bytes, ``["hear"]`` waits for a frame from the parent,
``["environment"]`` tells the names of its variables as a problem, ``["stop"]`` stops itself by SIGSTOP,
``["exit", code]`` ends, ``["deaf"]`` waits for ever, even after its pipe was closed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import msgpack

from zmesh.registry.codec import packed, read_frame


def main() -> None:
    """Act out the first plan that is left; without one, wait for the end of the pipe."""
    read_frame(sys.stdin.buffer)  # the orders
    sys.stdout.write("what a library says must not spoil the frames")
    sys.stdout.flush()
    plans = sorted(Path(sys.argv[1]).iterdir())
    steps = msgpack.unpackb(plans[0].read_bytes()) if plans else []
    if plans:
        plans[0].unlink()
    for step, *arguments in steps:
        if step == "raw":
            os.write(0, arguments[0])
        elif step == "hear":
            read_frame(sys.stdin.buffer)
        elif step == "environment":
            os.write(0, packed({"kind": "problem", "problem": " ".join(os.environ)}))
        elif step == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif step == "exit":
            os._exit(arguments[0])
        elif step == "deaf":
            signal.sigwait([signal.SIGUSR1])
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
