"""The process that asks the chain: ``python -m zmesh.registry.chain_worker``, started by ``chain.ChainRegistry``.

It is a separate process because decoding a chain's metadata holds Python's lock for a second, and no node may be deaf
that long.

Rules
 1. Frames (``codec``) travel both ways on the socket that is its standard input. Standard output is discarded, so that
    nothing a library prints gets between them. The first frame in says what to read (``Orders``); each later one asks
    for a reading now.
 2. One endpoint, one life: any error is reported in one sentence, and the process ends. Whether and where to try again
    is the parent's business.
 3. Finalized heads only, checked every ``poll`` seconds and whenever a subscription reports one. A set is sent whole if
    it changed, else only that it is the same; beats fill the time of a long reading. A head may have a lower number
    than the one before: the chain was rolled back, and what it says now counts. The end of a subscription is reported,
    and ends nothing else: polling stands in for it.
 4. It ends when the socket does, and when its parent is no longer the one it started with. Its memory is bounded.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from zmesh.registry.chains import choose, read_all
from zmesh.registry.chains.port import ChainError
from zmesh.registry.codec import Snapshot, packed, plain_of, read_frame
from zmesh.registry.port import Account
from zmesh.ss58 import to_ss58

BEAT = 1.0
"""Seconds between beats while a long reading makes progress."""
RESUBSCRIBE = 5.0
"""Seconds until an ended subscription is tried again; polling finds what it would have reported."""
QUIET = 60.0
"""Seconds without a finalized block after which a subscription is renewed: it may have died silently."""
MAX_PROBLEM = 300
"""Characters of a problem: an HTTP error carries whole pages."""
MAX_MEMORY = 4 * 1024**3
"""Bytes of address space that the process may use, several times what 100,000 validators need: the library reads
answers of any size, and an endpoint that never stops sending must not take the node's memory."""
MAX_ENDS = 8
"""Ended subscriptions that wait to be reported: as many as fit into half a minute of reading."""
HEAD_GAP = 0.5
"""Seconds between two heads that a subscription may report: chains finalize every few seconds, a liar whenever it
likes, and each head may cost a reading."""
MIN_SECRET = 4
"""Characters from which a part of a URL is cut out of a problem: providers put keys into paths and queries."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What to read, from the first frame."""

    url: str
    reader: str
    """A reader's name, or empty for the one that suits the chain."""
    timeout: float
    """Seconds that one call may take."""
    poll: float
    """Seconds between checks of the finalized head."""


class Worker:
    """Reads one chain until something goes wrong. Everything but ``ask`` and ``ended`` runs in the main thread."""

    def __init__(self, orders: Orders, out: BinaryIO) -> None:
        self._orders = orders
        self._out = out
        self._parent = os.getppid()
        self._wake = threading.Event()
        self._asked = 0
        self._ends: deque[str] = deque(maxlen=MAX_ENDS)
        self._last: Snapshot | None = None
        self._said = 0.0

    def ask(self, number: int) -> None:
        """Read again now; the answer carries this number. May be called from any thread."""
        self._asked = number
        self._wake.set()

    def ended(self, error: Exception) -> None:
        """A subscription ended with ``error``; reported after the next check of the head. May be called from any
        thread."""
        self._ends.append(problem_of(error, self._orders.url))

    def run(self) -> NoReturn:
        """Read until something goes wrong, and raise that."""
        from zmesh.registry.substrate import SubstrateChain

        self._say({"kind": "beat"})
        chain = SubstrateChain(self._orders.url, self._orders.timeout, self._progress)
        genesis = chain.genesis()
        answered = 0
        head = ""
        while True:
            asked = self._asked
            found = chain.finalized()
            if found != head or asked != answered:
                self._tell(self._read(chain, genesis, found), asked)
                if not head:
                    self._subscribe()
                head, answered = found, asked
            else:
                self._say_same(asked)
            while self._ends:
                self._say({"kind": "unsubscribed", "problem": self._ends.popleft()})
            self._wake.wait(self._orders.poll)
            self._wake.clear()
            if os.getppid() != self._parent:
                raise ChainError("the process that started the worker is gone")

    def _read(self, chain: Any, genesis: bytes, head: str) -> Snapshot:
        chain.at(head)
        prefix = chain.prefix()
        reader = choose(chain, self._orders.reader)
        accounts = {
            one.id: Account(one.id, to_ss58(one.id, prefix), one.stake, one.is_validator, one.reputation, one.endpoints)
            for one in read_all(reader, chain)
        }
        number, block = chain.number(head), bytes.fromhex(head.removeprefix("0x"))
        return Snapshot(genesis, prefix, number, block, reader.name, MappingProxyType(accounts))

    def _tell(self, found: Snapshot, asked: int) -> None:
        """Send the whole set if it changed, else only that the chain agrees with it."""
        before, self._last = self._last, found
        if before is not None and (before.prefix, before.accounts) == (found.prefix, found.accounts):
            self._say_same(asked)
        else:
            self._say({"kind": "set", "asked": asked, **plain_of(found)})

    def _say_same(self, asked: int) -> None:
        assert self._last is not None  # a set was sent by then
        self._say({"kind": "same", "block": self._last.block, "hash": self._last.hash, "asked": asked})

    def _subscribe(self) -> None:
        """Called once the first set is out, since subscribing needs the processor, too; HTTP has no subscriptions."""
        if self._orders.url.startswith("ws"):
            ports = (self._orders.url, self._wake.set, self.ended)
            threading.Thread(target=subscribe, args=ports, daemon=True).start()

    def _progress(self) -> None:
        if time.monotonic() - self._said > BEAT:
            self._say({"kind": "beat"})

    def _say(self, frame: dict[str, Any]) -> None:
        self._out.write(packed(frame))
        self._out.flush()
        self._said = time.monotonic()


def subscribe(url: str, wake: Callable[[], None], ended: Callable[[Exception], None]) -> NoReturn:
    """Call ``wake`` for each finalized head, for ever, on a connection of its own, because a subscription occupies it.

    Uses plain RPC instead of ``subscribe_block_headers``, which would decode the chain's metadata a second time.
    ``ended`` gets whatever ends a subscription; a new one is made soon.
    """
    from substrateinterface import SubstrateInterface

    def told(message: object, number: int, subscription: str) -> None:
        wake()
        # Sleeping here leaves what it reports meanwhile on its side of the connection.
        time.sleep(HEAD_GAP)

    while True:
        try:
            with SubstrateInterface(url=url, ws_options={"timeout": QUIET}, auto_reconnect=False) as client:
                client.rpc_request("chain_subscribeFinalizedHeads", [], result_handler=told)
        except Exception as error:  # noqa: BLE001 - reported; the library's errors have no common base
            ended(error)
        time.sleep(RESUBSCRIBE)


def listen(stream: BinaryIO, ask: Callable[[int], None]) -> NoReturn:
    """Pass on what the parent asks, and end the process when its pipe ends, whatever the main thread waits for."""
    try:
        while True:
            ask(int(read_frame(stream)["ask"]))
    except (EOFError, OSError, ValueError, KeyError, TypeError):
        os._exit(0)


def problem_of(error: BaseException, url: str) -> str:
    """An error in one sentence without the URL or any part of it, which may be a password or a key."""
    if isinstance(error, ChainError):
        text = str(error)
    elif isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        text = "the chain did not answer in time"
    elif isinstance(error, ConnectionError) or "ConnectionClosed" in type(error).__name__:
        text = "the chain closed the connection"
    else:
        words = " ".join(str(error).split())
        text = f"the chain cannot be read: {type(error).__name__}{': ' if words else ''}{words}"
    for secret in secrets_of(url):
        text = text.replace(secret, "...")
    return text[:MAX_PROBLEM]


def secrets_of(url: str) -> list[str]:
    """The parts of a URL that must not be shown, longest first: all but its scheme, host and port."""
    parts = urlsplit(url)
    said = [url, parts.path, parts.query, parts.username, parts.password, parts.fragment]
    said += [*parts.path.split("/"), *(value for _, value in parse_qsl(parts.query))]
    spelt = {form for one in said if one for form in (one, unquote(one))}
    return sorted((one for one in spelt if len(one) >= MIN_SECRET), key=len, reverse=True)


def bound_memory(size: int) -> None:
    """Limit this process to ``size`` bytes of address space; beyond that it gets a ``MemoryError``."""
    # Not every system has this limit; there the parent's patience is the only one.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def main() -> int:
    """Serve the socket until it ends. The exit status is 1 after a problem."""
    bound_memory(MAX_MEMORY)
    out = os.fdopen(os.dup(0), "wb")
    try:
        orders = Orders(**read_frame(sys.stdin.buffer))
    except (EOFError, ValueError, TypeError) as error:
        sys.stderr.write(f"{error}: this program is started by zmesh, not by hand\n")
        return 1
    worker = Worker(orders, out)
    threading.Thread(target=listen, args=(sys.stdin.buffer, worker.ask), daemon=True).start()
    try:
        worker.run()
    except Exception as error:  # noqa: BLE001 - reported to the parent, which warns about it
        try:
            out.write(packed({"kind": "problem", "problem": problem_of(error, orders.url)}))
            out.flush()
        except OSError:  # the parent is gone too
            return 0
    # Not by a normal exit of the interpreter, which would wait for threads that wait for the chain.
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
