"""A validator in a process of its own, for tests of what a killed one remembers. It obeys lines on stdin, in JSON.

``python -m tests.integration.voting_process KEYFILE FOLDER [die]``; an order is [type, payload], and the answer is
"sent" or the name of the error. With ``die``, the process kills itself as soon as what it is about to send is on disk.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from tests.support import client
from zmesh import ZmeshError
from zmesh.handlers.pledges import Pledges
from zmesh.state import State


def die_once_it_is_written() -> None:
    """From now on, the power fails between the disk and the mesh."""
    pledge = State.pledge

    def pledge_and_die(state: State, pledges: Pledges) -> None:
        pledge(state, pledges)
        os.kill(os.getpid(), signal.SIGKILL)

    State.pledge = pledge_and_die  # type: ignore[assignment,method-assign]


def answer(said: str) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


async def main(key: str, folder: str, *die: str) -> None:
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    if die:
        die_once_it_is_written()
    async with client("a", private_key=key, state_dir=folder) as mesh:
        async for line in orders:
            kind, payload = json.loads(line)
            try:
                await mesh.broadcast(kind, payload)
            except ZmeshError as error:
                answer(type(error).__name__)
            else:
                answer("sent")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
