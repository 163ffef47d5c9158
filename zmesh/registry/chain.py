"""A Substrate chain as the registry: a worker process reads it, and this module keeps the set in force.

Rules
 1. The chain never disturbs the node: one that is unreachable, silent or lying costs a warning, logged once for each
    reason, and the last good set stays in force. ``repeats`` keeps a chain that lies on and off from flooding the log.
    Starting waits for a first answer, but not long.
 2. One endpoint at a time, all in turn. After a round without success the wait doubles from ``backoff_min`` to
    ``backoff_max`` seconds, with jitter, so that a chain that comes back is not hit by all its nodes at once.
 3. A worker that is silent for ``silence`` seconds is ended and replaced: it sends a beat every few seconds, unless it
    or the chain hangs.
 4. ``caution`` decides which sets are believed. The chain itself is identified by its genesis: an endpoint of another
    chain is refused. Only a set from the disk gives way to another chain, with a warning.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zmesh.core.now import Now
from zmesh.log import get_logger
from zmesh.log_limit import LogLimit
from zmesh.registry.cache import Cache
from zmesh.registry.caution import Caution, SetClaim
from zmesh.registry.chains import AUTOMATIC, reader_name
from zmesh.registry.child import COMMAND, Child
from zmesh.registry.codec import MAX_BLOCK, Snapshot, number, snapshot_of, unpacked
from zmesh.registry.port import HASH_SIZE, OnChange, RegistryStatus, ValidatorSet
from zmesh.registry.repeats import Repeats
from zmesh.rpc import probe_rpc, rpc_endpoint, rpc_name

ANSWERS = frozenset({"set", "same"})
"""Kinds of frames that end a reading."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a chain may take, in seconds."""

    first: float = 5.0
    """How long ``start`` waits for the first answer: a worker's imports and a nearby chain's metadata take two to
    four."""
    read: float = 5.0
    """How long ``read`` waits."""
    call: float = 10.0
    """For one call to the chain."""
    poll: float = 2.0
    """Between checks of the finalized head, for when no subscription reports it."""
    silence: float = 30.0
    """How long the worker may be silent: longer than a call, and than a busy machine needs to import and decode."""
    reading: float = 180.0
    """For a whole reading: 100,000 validators take half a minute, and an endpoint could dribble its answer for ever."""
    backoff_min: float = 1.0
    backoff_max: float = 30.0


class ChainRegistry:
    """The ``Registry`` behind a Substrate chain.

    ``urls``: its RPC endpoints (ws, wss, http or https), at least one, already checked. ``kind``: the value of
    ``MESH_REGISTRY`` (``substrate``, ``substrate:session`` ...). ``folder``: where the last good set is kept; None
    keeps none. ``genesis``: 32 bytes if the operator says which chain it has to be. Raises ``ConfigError``.
    """

    def __init__(
        self,
        urls: Sequence[str],
        kind: str = AUTOMATIC,
        folder: Path | None = None,
        *,
        genesis: bytes = b"",
        patience: Patience | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._reader = reader_name(kind)
        self._urls = list(urls)
        self._patience = patience or Patience()
        self._rng = rng or random.Random()
        self._cache = Cache(folder)
        self._caution = Caution()
        # Which chain it is: from the operator, or from the first set that was accepted.
        self._genesis = genesis
        self._set = ValidatorSet(genesis=genesis)
        self._snapshot: Snapshot | None = None
        self._mono = time.monotonic
        self._wall = time.time
        self._task: asyncio.Task[None] | None = None
        self._child: Child | None = None
        # The last set from the present worker, accepted or not.
        self._said: Snapshot | None = None
        self._agreed_at: float | None = None
        self._counters: Counter[str] = Counter()
        self._begin(lambda found: None)
        self.command: Sequence[str] = COMMAND
        """The command that starts the worker."""

    # ---------------------------------------------------------------- the port

    async def start(self, on_change: OnChange) -> None:
        """Hand over the last good set, if there is one, and start asking the chain. Never raises because of the chain.

        That set is the previous life's, else the stored one.
        """
        self._begin(on_change)
        if self._snapshot is None:
            await self._restore()
        if self._snapshot is not None:
            self._hand_over()
        self._hopeful = True
        self._task = asyncio.create_task(self._run_for_ever(), name=f"zmesh registry {self._source()}")
        await self._await_answer(0, self._patience.first)

    async def read(self) -> ValidatorSet:
        """Have the chain read now, unless it is known to be away; returns the set then in force."""
        self._asked += 1
        if self._child is not None:
            self._child.say({"ask": self._asked})
        await self._await_answer(self._asked, self._patience.read)
        return self._set

    async def stop(self) -> None:
        """End the worker, and stop asking."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._notify()
            await self._save()

    def status(self) -> RegistryStatus:
        """The state of the registry: how far the chain agrees with the set in force."""
        return RegistryStatus(
            self._source(), len(self._set), self._age(), self._problem, self._set.block, dict(self._counters)
        )

    def _begin(self, on_change: OnChange) -> None:
        """Start a new life: the set in force is kept; questions, answers and reasons are not."""
        self._on_change = on_change
        self._url = self._urls[0]
        # Whether the last attempt is still under way, and so may bring an answer.
        self._hopeful = False
        self._asked = 0
        self._answer = -1
        self._news = asyncio.Event()
        self._problem: str | None = None
        self._warnings = Repeats()
        self._ended = Repeats()  # of subscriptions, none of which lasts for good
        self._changes = LogLimit()  # a lying endpoint may give another set each time it is asked

    # ---------------------------------------------------------------- the worker's life

    async def _run_for_ever(self) -> None:
        failures = 0
        while True:
            for url in self._urls:
                self._url, self._hopeful = url, True
                answered, problem = await self._survive(url)
                failures = 0 if answered else failures + 1
                self._warn(problem)
                self._hopeful = False
                self._notify()
            await asyncio.sleep(self._pause(failures // len(self._urls)))

    async def _survive(self, url: str) -> tuple[bool, str]:
        """``_attempt``, whatever it raises: nothing else would ask the chain again."""
        try:
            return await self._attempt(url)
        except Exception as error:  # noqa: BLE001 - our own bug, logged in full; the next attempt may do better
            _log.error("registry_attempt_failed", exc_info=error)
            return False, f"asking the chain at {rpc_endpoint(url)} failed: {type(error).__name__}"

    async def _attempt(self, url: str) -> tuple[bool, str]:
        """Ask one endpoint until that fails; returns whether a set was accepted from it, and why it ended."""
        # An unreachable chain costs no process.
        problem = await probe_rpc(url, self._patience.call)
        if problem is not None:
            return False, problem
        before = self._agreed_at
        try:
            self._child, self._said = await Child.start(self.command), None
            try:
                problem = await self._serve(self._child, url)
            finally:
                child, self._child = self._child, None
                await child.close()
        except OSError as error:
            problem = f"the worker that reads the chain cannot be started: {error.strerror or error}"
        return self._agreed_at != before, problem

    async def _serve(self, child: Child, url: str) -> str:
        """Process what the worker sends until it stops or sends nonsense; returns why."""
        wait = self._patience
        child.say({"url": url, "reader": self._reader, "timeout": wait.call, "poll": wait.poll})
        if self._asked > self._answer:
            child.say({"ask": self._asked})
        source = str(rpc_endpoint(url))
        answered = self._mono()
        try:
            while True:
                body = await child.hear(wait.silence)
                # Unpacking a large set takes longer than the event loop may be blocked.
                frame = await asyncio.to_thread(unpacked, body)
                problem = await self._take(frame, source)
                if problem is not None:
                    return problem
                if frame.get("kind") in ANSWERS:
                    answered = self._mono()
                elif self._mono() - answered > wait.reading:
                    return f"the chain at {source} has not finished its answer within {wait.reading:g} s"
        except TimeoutError:
            return f"the chain at {source} has been silent for {wait.silence:g} s"
        except (EOFError, OSError):
            return f"the worker that reads the chain at {source} ended without giving a reason"
        except ValueError as error:
            return f"the worker that reads the chain at {source} sent malformed data: {error}"

    def _pause(self, rounds: int) -> float:
        """Seconds until the next round."""
        longest: float = min(self._patience.backoff_max, self._patience.backoff_min * 2 ** min(max(rounds - 1, 0), 10))
        return longest * self._rng.uniform(0.5, 1.0)

    # ---------------------------------------------------------------- what it says

    async def _take(self, frame: dict[str, object], source: str) -> str | None:
        """Act on a frame; returns why the endpoint should be left, if it should. Raises ``ValueError``."""
        kind = frame.get("kind")
        if kind == "beat":
            return None
        if kind == "problem":
            return f"{frame.get('problem')} ({source})"
        if kind == "unsubscribed":
            self._note_ended(str(frame.get("problem")), source)
            return None
        if kind == "same" and self._said is not None:
            self._said = again(self._said, frame)
        elif kind == "set":
            self._said = await asyncio.to_thread(snapshot_of, frame)
        else:
            raise ValueError(f"a frame is of the unknown kind {kind!r:.40}")
        problem = self._judge(self._said, source)
        asked = frame.get("asked")
        self._answer = asked if isinstance(asked, int) else 0
        self._notify()
        if self._cache.is_due(self._mono()):
            await self._save()
        return problem

    def _judge(self, found: Snapshot, source: str) -> str | None:
        """Accept the set if it may be believed; returns why the endpoint should be left, if it should."""
        if self._genesis and found.genesis != self._genesis:
            return f"{source} is a different chain: its genesis is 0x{found.genesis.hex()}, not 0x{self._genesis.hex()}"
        claim = SetClaim(found.accounts.keys(), found.block, found.hash, source)
        # Members of another chain, known from the disk, are no reason to doubt this one.
        in_force = {} if self._is_foreign(found) else self._set.accounts
        doubt = None if found.accounts is in_force else self._caution.judge(in_force.keys(), claim)
        if doubt is not None:
            self._warn(doubt)
            # Another endpoint can end the doubt sooner than the next block.
            return doubt if len(self._urls) > 1 else None
        self._agree(found)
        return None

    def _agree(self, found: Snapshot) -> None:
        """Put in force what the chain says now."""
        if self._is_foreign(found):
            _log.warning("registry_cache_of_another_chain", genesis=found.genesis, cached=self._set.genesis)
        changed = (self._set.genesis, self._set.accounts) != (found.genesis, found.accounts)
        self._genesis, self._snapshot = found.genesis, found
        self._set = ValidatorSet(accounts=found.accounts, genesis=found.genesis, block=found.block)
        self._agreed_at = self._mono()
        self._problem = None
        if self._warnings.end():
            _log.info("registry_well_again", source=self._source(), block=found.block)
        if changed:
            self._cache.replaced()
            self._tell_change(found.block)
            self._hand_over()

    def _is_foreign(self, found: Snapshot) -> bool:
        """Whether the set in force is another chain's."""
        return self._set.genesis not in (b"", found.genesis)

    def _hand_over(self) -> None:
        try:
            self._on_change(self._set)
        except Exception as error:  # noqa: BLE001 - a bug in the callback must not end the watch
            _log.error("registry_change_not_taken", exc_info=error)

    # ---------------------------------------------------------------- the disk

    async def _restore(self) -> None:
        """Start with the stored set."""
        cached = await self._cache.restore(Now(self._mono(), self._wall()))
        if cached is None:
            return
        found, agreed_at = cached
        if self._genesis and found.genesis != self._genesis:
            _log.warning("registry_cache_of_another_chain", genesis=self._genesis, cached=found.genesis)
            return
        self._set = ValidatorSet(accounts=found.accounts, genesis=found.genesis, block=found.block)
        self._snapshot, self._agreed_at = found, agreed_at
        _log.info("registry_from_disk", members=len(self._set), block=found.block, age=round(self._age() or 0))

    async def _save(self) -> None:
        """Store the set in force, with the time at which the chain last agreed with it."""
        if self._snapshot is not None and self._agreed_at is not None:
            await self._cache.save(self._snapshot, self._agreed_at, Now(self._mono(), self._wall()))

    # ---------------------------------------------------------------- small things

    def _source(self) -> str:
        """The endpoint in use, without password and path, and the reader once it is known: human-readable."""
        how = f" ({self._snapshot.reader})" if self._snapshot is not None else ""
        return f"chain {rpc_name(self._url)}{how}"

    def _age(self) -> float | None:
        """Seconds since the chain last agreed with the set in force."""
        return None if self._agreed_at is None else self._mono() - self._agreed_at

    def _warn(self, problem: str) -> None:
        """Log it as ``Repeats`` allows: two endpoints that are away take turns, and one may lie on and off."""
        more = self._warnings.take(self._url, problem, self._mono())
        if more is not None:
            _log.warning("registry_kept", problem=problem, members=len(self._set), **more)
        self._problem = problem

    def _tell_change(self, block: int) -> None:
        more = self._changes.take(("registry_changed",), self._mono())
        if more is not None:
            _log.info("registry_changed", source=self._source(), members=len(self._set), block=block, **more)

    def _note_ended(self, problem: str, source: str) -> None:
        """A subscription ended. This is no problem of the registry: the finalized head is polled all the same."""
        self._counters["subscription_ended"] += 1
        more = self._ended.take(source, problem, self._mono())
        if more is not None:
            effect = f"changes are noticed up to {self._patience.poll:g} s later until it is renewed"
            _log.info("registry_subscription_ended", source=source, problem=problem, effect=effect, **more)

    def _notify(self) -> None:
        """Wake everything that waits for an answer."""
        self._news.set()
        self._news = asyncio.Event()

    async def _await_answer(self, number: int, seconds: float) -> None:
        """Wait until the chain has answered this question, is known to be away, or the time is up."""
        try:
            async with asyncio.timeout(seconds):
                while self._task is not None and self._hopeful and self._answer < number:
                    await self._news.wait()
        except TimeoutError:  # the set in force has to do, and ``status`` reports its age
            return


def again(said: Snapshot, frame: Mapping[str, object]) -> Snapshot:
    """A worker's previous set, moved to the block for which it was now confirmed. Raises ``ValueError``."""
    found = frame.get("hash")
    if not isinstance(found, bytes) or len(found) != HASH_SIZE:
        raise ValueError("a block without its hash")
    return replace(said, block=number(frame.get("block"), MAX_BLOCK, "block"), hash=found)
