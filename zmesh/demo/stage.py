"""The demo from beginning to end: folders, processes, rounds, and the referee.

Rules
 1. Everything is made for this run, in a folder that is deleted with it: keys (0600), pictures, whatever says who
    belongs.
 2. Nothing waits without a deadline; each one says what it waited for.
"""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from zmesh.demo import digits
from zmesh.demo.ground import KEY_FILE, Ground
from zmesh.demo.processes import DemoError, Processes
from zmesh.demo.score import Score
from zmesh.demo.validator import ROUND_SECONDS, SHARD_FILE
from zmesh.identity import create_key_file

START_SECONDS = 30.0
"""Seconds until every process listens, and again until every link is live, for ten validators; more get more."""
LAST_SECONDS = 10.0
"""Seconds until all have heard of the last model: twice what repair takes at worst."""

Watch = Callable[[Score, str], None]


async def perform(validators: int, rounds: int, lay: Callable[[Path], Ground], watch: Watch) -> Score:
    """Run the demo; ``watch(score, now)`` is called at every report, where ``now`` says in a few words what is being
    done.

    ``lay`` makes the ground in the demo's folder.

    Raises ``DemoError`` if it cannot go on. A lost message does not raise: it shows in the score.
    """
    task = asyncio.current_task()
    assert task is not None  # a running coroutine is in one
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        with tempfile.TemporaryDirectory(prefix="zmesh-demo-") as folder:
            async with lay(Path(folder)) as ground:
                return await _Stage(Path(folder), ground, Score(_names(validators), rounds), watch).run()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def _names(validators: int) -> list[str]:
    return [f"validator_{number:02}" for number in range(1, validators + 1)]


class _Stage:
    def __init__(self, folder: Path, ground: Ground, score: Score, watch: Watch) -> None:
        self._folder = folder
        self._ground = ground
        self._score = score
        self._watch = watch
        self._now = ""
        self._patience = START_SECONDS * max(1.0, len(score.validators) / 10)

    def _deal(self) -> None:
        """Deal pictures and a key to every validator, and keep for the referee what none of them gets."""
        score = self._score
        try:
            shards, held_out = digits.deal(len(score.validators))
        except OSError as error:
            raise DemoError(f"scikit-learn's digits cannot be read: {error}") from None
        score.judge = partial(digits.accuracy, shard=held_out)
        alone = [score.judge(digits.train(digits.blank(), shard, score.rounds)) for shard in shards]
        score.alone = sum(alone) / len(alone)
        for name, shard in zip(score.validators, shards, strict=True):
            home = self._folder / name
            home.mkdir(mode=0o700)
            shard.save(home / SHARD_FILE)
            create_key_file(home / KEY_FILE)

    async def run(self) -> Score:
        score = self._score
        self._say("dealing the pictures")
        await asyncio.to_thread(self._deal)
        self._say(self._ground.preparing)
        await self._ground.prepare(score.validators)
        self._say("starting processes")
        async with Processes("zmesh.demo.validator", {}, self._folder, self._take) as processes:
            for wave in self._ground.waves(score.validators):
                for name in wave:
                    await processes.start(name, self._command(name))
                listening = partial(score.ports.keys().__ge__, set(wave))
                await self._reach(processes, listening, self._patience, "validators to listen")
            self._ground.listening(score.ports)
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

    def _command(self, name: str) -> list[str]:
        score = self._score
        rounds = score.rounds if name == score.coordinator else 0
        settings = json.dumps(self._ground.settings(name, score.ports))
        return [str(self._folder / name), str(len(score.others)), str(rounds), settings]

    async def _reach(self, processes: Processes, reached: Callable[[], bool], seconds: float, what: str) -> None:
        if not await processes.until(reached, seconds, f"waiting for {what}"):
            raise DemoError(f"waited {seconds:.0f} s for {what}, in vain")

    def _take(self, name: str, report: Mapping[str, object]) -> None:
        self._score.take(name, report)
        self._watch(self._score, self._now)

    def _say(self, now: str) -> None:
        self._now = now
        self._watch(self._score, now)
