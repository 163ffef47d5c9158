"""The demo from beginning to end: folders, processes, rounds, and the referee.

Rules
 1. Everything is made for this run, in a folder that goes with it: keys (0600), pictures, the registry.
 2. The registry comes in two versions, as it would in life: first who belongs, then, when the validators have bound
    their ports, where they are. They notice the change by themselves.
 3. Nothing waits without a deadline; each says what it waited for.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from zmesh.demo import digits
from zmesh.demo.processes import DemoError, Processes
from zmesh.demo.score import Score
from zmesh.demo.validator import KEY_FILE, ROUND_SECONDS, SHARD_FILE
from zmesh.files import replace_private
from zmesh.identity import create_key_file

START_SECONDS = 30.0
"""Seconds until every process listens, and again until every link is live; for ten. More get more."""
LAST_SECONDS = 10.0
"""Seconds until the last model was heard of: twice what repair takes at worst."""

Watch = Callable[[Score, str], None]


async def perform(validators: int, rounds: int, watch: Watch) -> Score:
    """Run the demo; ``watch(score, now)`` is called at every report, with what happens now in a few words.

    Raises ``DemoError`` when it could not go on. A lost message does not raise: it shows in the score.
    """
    task = asyncio.current_task()
    assert task is not None  # a coroutine that runs is in one
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        with tempfile.TemporaryDirectory(prefix="zmesh-demo-") as folder:
            return await _Stage(Path(folder), validators, rounds, watch).run()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


class _Stage:
    def __init__(self, folder: Path, validators: int, rounds: int, watch: Watch) -> None:
        self._folder = folder
        self._registry = folder / "registry.toml"
        self._watch = watch
        self._now = ""
        self._patience = START_SECONDS * max(1.0, validators / 10)
        self._score = Score([f"validator_{number:02}" for number in range(1, validators + 1)], rounds)
        self._keys: dict[str, str] = {}

    def _deal(self) -> None:
        """Pictures and a key for everybody, and for the referee what nobody else gets."""
        score = self._score
        try:
            shards, held_out = digits.deal(len(score.validators))
        except OSError as error:
            raise DemoError(f"scikit-learn's digits cannot be read: {error}") from None
        score.judge = partial(digits.accuracy, shard=held_out)
        alone = [score.judge(digits.train(digits.blank(), shard, score.rounds)) for shard in shards]
        score.alone = sum(alone) / len(alone)
        self._keys = {name: self._furnish(name, shard) for name, shard in zip(score.validators, shards, strict=True)}

    def _furnish(self, name: str, shard: digits.Shard) -> str:
        """A folder with a key and pictures; gives the public key in hex."""
        home = self._folder / name
        home.mkdir(mode=0o700)
        shard.save(home / SHARD_FILE)
        return create_key_file(home / KEY_FILE).public.hex()

    def _write_registry(self, ports: Mapping[str, int]) -> None:
        """Who belongs and, as far as known, where."""
        entries = []
        for name, key in self._keys.items():
            address = f'"/ip4/127.0.0.1/tcp/{ports[name]}"' if name in ports else "[]"
            entries.append(
                f'[[validator]]\npeer_id = "{name}"\naccount = "account of {name}"\npublic_key = "{key}"\n'
                f"address = {address}\nstake = 1000\n"
            )
        replace_private(self._registry, "\n".join(entries).encode())

    async def run(self) -> Score:
        score = self._score
        self._say("dealing the pictures")
        await asyncio.to_thread(self._deal)
        self._write_registry({})
        commands = {
            name: (str(self._folder / name), str(self._registry), str(score.rounds if name == score.coordinator else 0))
            for name in score.validators
        }
        self._say("starting processes")
        async with Processes("zmesh.demo.validator", commands, self._folder, self._take) as processes:
            await self._reach(processes, score.all_listen, self._patience, "validators to listen")
            self._write_registry(score.ports)
            for name in score.validators:
                processes.tell(name, "meet")
            self._say("connecting everybody with everybody")
            await self._reach(processes, score.all_linked, self._patience, "links to come up")
            processes.tell(score.coordinator, "begin")
            self._say("training")
            await processes.until(score.all_heard, score.rounds * ROUND_SECONDS + LAST_SECONDS, "training")
            self._say("stopping")
        self._say("")
        return score

    async def _reach(self, processes: Processes, reached: Callable[[], bool], seconds: float, what: str) -> None:
        if not await processes.until(reached, seconds, f"waiting for {what}"):
            raise DemoError(f"waited {seconds:.0f} s for {what}, in vain")

    def _take(self, name: str, report: Mapping[str, object]) -> None:
        self._score.take(name, report)
        self._watch(self._score, self._now)

    def _say(self, now: str) -> None:
        self._now = now
        self._watch(self._score, now)
