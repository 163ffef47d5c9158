"""Measures how fast the mesh follows its chain: from a block to a newcomer linked with all, or a leaver cut off.

Four validators stay; a fifth comes and goes by ``Session.Validators``, and runs all the while. Each is a process that
reads the chain itself and knows one address to begin with. Time runs from when the benchmark learns that its block was
built, and is therefore final, to the last of the nodes concerned, on the machine's one monotonic clock. The chain is
chopsticks with a genuine runtime, on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import BenchmarkError, Figure, Line, Report, Worker, crew, main, median
from zmesh import Identity, MeshNetworkClient
from zmesh.demo.accounts import dev_account
from zmesh.demo.chopsticks import Chopsticks, session
from zmesh.demo.npm import NoChainError

LOOK = 0.01
"""Seconds between two checks of who belongs and who is linked."""
STAYING = 4
JOIN_SECONDS = 5.0
"""Seconds that a newcomer may take, as the mesh promises."""
MESH_SECONDS = 10.0
"""Seconds that five listening nodes may take to form a full mesh."""


class Seen(NamedTuple):
    """What one node saw, and when (monotonic seconds)."""

    at: float
    listed: frozenset[str]
    """Keys of members whose records it has."""
    linked: frozenset[str]
    """Those of them with a live link."""


async def validator(line: Line, url: str, seed: bytes, delegation: str, bootstrap: str) -> None:
    """Run a node and report every change among its peers."""
    mesh = MeshNetworkClient(
        seed.hex()[:8],
        0,
        url,
        seed,
        registry="substrate",
        delegation=delegation,
        bootstrap=bootstrap,
        listen_host="127.0.0.1",
    )

    async def watch() -> None:
        before = None
        while True:
            peers = mesh.peers.values()
            now = frozenset(peer.public_key for peer in peers), frozenset(p.public_key for p in peers if p.is_linked)
            if now != before:
                line.tell(Seen(time.monotonic(), *now))
                before = now
            await asyncio.sleep(LOOK)

    async with mesh:
        line.tell(mesh.listen_port)
        watching = asyncio.create_task(watch())
        await line.hear()
        watching.cancel()


def until(worker: Worker, holds: Callable[[Seen], bool]) -> float:
    """When the node first saw what ``holds``, among the reports not read yet."""
    while True:
        seen: Seen = worker.hear()
        if holds(seen):
            return seen.at


def repeat(chain: Chopsticks, workers: Sequence[Worker], keys: Sequence[str], rounds: int) -> tuple[list[float], ...]:
    """Seconds until the last of five saw the guest linked, and until the last of four no longer had it."""
    addresses = [dev_account(f"//v{number}").address for number in range(STAYING + 1)]
    *staying, guest = workers
    others = frozenset(keys[:STAYING])
    came, left = [], []
    for _ in range(rounds):
        asyncio.run(chain.set_validators(addresses))
        final = time.monotonic()
        moments = [until(worker, lambda seen: keys[-1] in seen.linked) for worker in staying]
        came.append(max(*moments, until(guest, lambda seen: others <= seen.linked)) - final)
        asyncio.run(chain.set_validators(addresses[:STAYING]))
        final = time.monotonic()
        left.append(
            max(until(worker, lambda seen: keys[-1] not in seen.listed | seen.linked) for worker in staying) - final
        )
        until(guest, lambda seen: not seen.linked)
    return came, left


def measure(options: argparse.Namespace) -> Report:
    """Run the benchmark."""
    seeds = [os.urandom(32) for _ in range(STAYING + 1)]
    identities = [Identity.from_seed(seed) for seed in seeds]
    keys = [identity.public.hex() for identity in identities]
    accounts = [dev_account(f"//v{number}") for number in range(STAYING + 1)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            chain = stack.enter_context(Chopsticks(session([one.address for one in accounts]), folder))
        except NoChainError as error:
            raise BenchmarkError(str(error)) from None
        genesis = asyncio.run(chain.genesis())
        signed = [
            account.delegate(identity, account.says(identity, genesis)).encoded.hex()
            for account, identity in zip(accounts, identities, strict=True)
        ]
        arguments = [(chain.url, seed, delegation) for seed, delegation in zip(seeds, signed, strict=True)]
        started = time.monotonic()
        first = stack.enter_context(crew(validator, [(*arguments[0], "")]))
        where = f"127.0.0.1:{first[0].hear()}"
        workers = [*first, *stack.enter_context(crew(validator, [(*one, where) for one in arguments[1:]]))]
        for worker in workers[1:]:
            worker.hear()
        listen = time.monotonic()
        whole = max(until(worker, lambda seen: len(seen.linked) == STAYING) for worker in workers)
        asyncio.run(chain.set_validators([one.address for one in accounts[:STAYING]]))
        for worker in workers[:STAYING]:
            until(worker, lambda seen: keys[-1] not in seen.listed | seen.linked)
        until(workers[-1], lambda seen: not seen.linked)
        came, left = repeat(chain, workers, keys, options.rounds)
        for worker in workers:
            worker.tell("stop")
    return Report(
        "membership",
        f"{STAYING} validators stay, one comes and goes {options.rounds} times by a real chain",
        [
            Figure("block to admitted by all, p50", median(came), "s", at_most=JOIN_SECONDS),
            Figure("block to admitted by all, worst", max(came), "s", at_most=JOIN_SECONDS),
            Figure("block to refused by all, p50", median(left), "s"),
            Figure("block to refused by all, worst", max(left), "s"),
            Figure(f"{STAYING + 1} listen to full mesh", whole - listen, "s", at_most=MESH_SECONDS),
            Figure(f"{STAYING + 1} processes started to full mesh", whole - started, "s"),
        ],
        {"rounds": options.rounds},
        [
            "admitted: a link is live to each of the others, as both ends see it; the newcomer ran before",
            "refused: no longer a member, whose frames are dropped, and disconnected",
            "what is started is one interpreter for each and one more in which it decodes the chain's metadata",
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.membership", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="times that one comes and goes (10: about 40 s)")
    sys.exit(main(parser, measure))
