"""Measures how long it takes to learn from a chain who belongs, and how little the node's event loop notices.

The chain is chopsticks with a genuine runtime, on this machine. Lag is how late a ticker of one millisecond wakes up in
the node's process, from the registry's start to its first set; meanwhile the worker fetches and decodes the chain's
metadata. For comparison, the same ticker runs while nothing happens, and while a thread decodes the same metadata.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.harness import BenchmarkError, Figure, Line, Report, crew, main, percentile
from zmesh.demo.chopsticks import Chopsticks, Storage, session
from zmesh.demo.npm import NoChainError
from zmesh.registry.chain import ChainRegistry, Patience
from zmesh.registry.port import ValidatorSet

SIZES = (10, 100, 1000)
"""Validators."""
READS = 7
"""Reads per size; the median counts."""
TICK = 0.001
QUIET = 3.0
"""Seconds of the idle measurement: about as long as a first set takes."""
MAX_READ = 2.0
MAX_LAG = 20.0
STAKE = 5 * 10**12
PATIENCE = replace(Patience(), first=60.0, read=60.0, silence=60.0)


@dataclass(frozen=True)
class Lag:
    """Lag in milliseconds, and the length of the measurement in seconds."""

    p50: float
    p99: float
    worst: float
    seconds: float


def account(number: int) -> str:
    """An account whose key no one holds."""
    return "0x" + hashlib.blake2b(number.to_bytes(4, "big"), digest_size=32).hexdigest()


def staked(count: int) -> Storage:
    """The session and the exposures of the era, as a relay chain holds them."""
    names = [account(number) for number in range(count)]
    exposures = [[[0, name], {"total": STAKE, "own": STAKE, "others": []}] for name in names]
    return {
        **session(names),
        "Staking": {"CurrentEra": 0, "ActiveEra": {"index": 0, "start": None}, "ErasStakers": exposures},
    }


async def lag_during(work: Awaitable[object]) -> Lag:
    """Measure how late a ticker wakes up until the work is done."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            late.append((time.perf_counter() - due) * 1000)

    ticker = asyncio.create_task(tick())
    started = time.perf_counter()
    try:
        await work
    finally:
        ticker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticker
    return Lag(statistics.median(late), percentile(late, 0.99), max(late), time.perf_counter() - started)


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[tuple[ChainRegistry, asyncio.Queue[ValidatorSet]]]:
    """A registry that has its first set, and a queue of the next ones."""
    sets: asyncio.Queue[ValidatorSet] = asyncio.Queue()
    registry = ChainRegistry([url], patience=PATIENCE)
    await registry.start(sets.put_nowait)
    try:
        if not len(await registry.read()):
            raise BenchmarkError(f"no set came from the chain: {registry.status().problem}")
        yield registry, sets
    finally:
        await registry.stop()


async def lags(line: Line, url: str) -> None:
    """Measure in a fresh process: the loop's lag while nothing happens, with the worker, and with a thread."""

    def decode() -> None:
        from substrateinterface import SubstrateInterface

        with SubstrateInterface(url=url) as client:
            client.init_runtime()

    quiet = await lag_during(asyncio.sleep(QUIET))
    registry = ChainRegistry([url], patience=PATIENCE)
    worker = await lag_during(registry.start(lambda found: None))
    members = registry.status().members
    await registry.stop()
    if not members:
        raise BenchmarkError(f"no set came from the chain: {registry.status().problem}")
    line.tell((quiet, worker, await lag_during(asyncio.to_thread(decode))))


async def seconds_to_read(chain: Chopsticks, sizes: tuple[int, ...], *, stake: bool) -> list[float]:
    """The median for each size; the set grows from one size to the next."""
    medians = []
    async with reading(chain.url) as (registry, sets):
        for size in sizes:
            storage = staked(size) if stake else session([account(number) for number in range(size)])
            await chain.set_storage(storage)
            await chain.new_block()
            async with asyncio.timeout(60):
                found = await sets.get()
                while len(found) != size:
                    found = await sets.get()
            if stake and {one.stake for one in found.accounts.values()} != {STAKE}:
                raise BenchmarkError("the stakes did not arrive")
            took = []
            for _ in range(READS):
                started = time.perf_counter()
                await registry.read()
                took.append(time.perf_counter() - started)
            medians.append(statistics.median(took))
    return medians


def measure(options: argparse.Namespace) -> Report:
    """Run the benchmark."""
    few = session([account(number) for number in range(SIZES[0] // 2)])
    try:
        with tempfile.TemporaryDirectory() as folder:
            with Chopsticks(few, Path(folder)) as chain:
                plain = asyncio.run(seconds_to_read(chain, SIZES, stake=False))
                with crew(lags, [(chain.url,)]) as (worker,):
                    quiet, process, thread = worker.hear(180)
            with Chopsticks(few, Path(folder), staking=True) as chain:
                (with_stake,) = asyncio.run(seconds_to_read(chain, SIZES[-1:], stake=True))
    except NoChainError as error:
        raise BenchmarkError(f"skipped, because {error}") from None
    read = [
        Figure(f"discover {size:,} validators", took, "s", at_most=MAX_READ)
        for size, took in zip(SIZES, plain, strict=True)
    ]
    return Report(
        "discovery",
        "to learn from a chain who belongs, and what the event loop feels of it",
        [
            *read,
            Figure(f"discover {SIZES[-1]:,} with stake", with_stake, "s", at_most=MAX_READ),
            Figure("from start to the first set", process.seconds, "s"),
            Figure("lag, nothing happens: p99", quiet.p99, "ms"),
            Figure("lag, first set by the worker: p50", process.p50, "ms"),
            Figure("lag, first set by the worker: p99", process.p99, "ms", at_most=MAX_LAG),
            Figure("lag, first set by the worker: worst", process.worst, "ms"),
            Figure("lag, the same in a thread: p99", thread.p99, "ms"),
            Figure("lag, the same in a thread: worst", thread.worst, "ms"),
        ],
        {"reads": READS},
        [
            "discovery: the chain is asked anew, as discover_peers() has it; median",
            f"lag: of a ticker of {TICK * 1000:g} ms; nothing happens: worst {quiet.worst:.1f} ms",
        ],
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="benchmarks.discovery", description=__doc__.partition("\n")[0])
    sys.exit(main(arguments, measure))
