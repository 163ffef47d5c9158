"""Finds a peer's sockets from its key and front doors: resolves names, and reads the ports from the peer's own record.

Rules
 1. Names are resolved here, in asyncio and afresh for every dial: a slow DNS answer inside libzmq would freeze
    unrelated links. The transport gets IP literals only, and none of this machine if the name promised another.
 2. The ports of ROUTER and publisher are in the peer's signed record, which its front door serves. A record that the
    dialled key did not sign is not used.
 3. If an address serves no record, or nothing answers at the ports in the record, the front door itself is dialled: it
    passes ZMTP through, and gossip then rides on the direct lane.
 4. An address that serves no record may be a bare ROUTER or a black hole, and only dialling tells which. From then on
    it is tried last, until it serves a record; of several, the one dialled longest ago goes first. So a dead address
    costs a peer one dial, and keeps no one from the peer's other addresses.
 5. An address that two keys claim belongs to the one whose record is served there: the other's dial fails, at no cost
    to any other peer.
 6. At most one dial per peer is under way; each ends in exactly one ``transport.dial`` or one ``LinkClosed``.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from zmesh.aside import aside
from zmesh.core.errors import WireError
from zmesh.core.events import LinkClosed
from zmesh.core.types import Endpoint, PeerKey
from zmesh.handlers.record import Record, decode_record, is_local, verify_record
from zmesh.identity import verify
from zmesh.log import get_logger
from zmesh.multiaddr import is_address
from zmesh.transport import Routes, Transport

FETCH_SECONDS = 2.0
"""Seconds for connecting to a front door and reading its record of at most 8 KiB."""
RESOLVE_SECONDS = 5.0
"""Seconds for one name: the usual timeout of a resolver."""
MAX_ADDRESSES = 4
"""Addresses tried per name: a name with hundreds behind it must not hold up a dial."""
MAX_SILENT = 4096
"""Addresses remembered for serving no record, of all peers, some 300 bytes each: forgetting one costs one more dial."""
MAX_LOOKUPS = 32
"""Names looked up at once. An unanswered lookup holds its thread for half a minute, however soon its caller gives up.
So these threads are shared with nothing else that waits for a thread, such as reading the registry, and do not delay
the end of the process."""

_log = get_logger(__name__)
_lookups = threading.BoundedSemaphore(MAX_LOOKUPS)

Fetch = Callable[[Endpoint, float], Awaitable[bytes]]


class Dialer:
    """Dials peers for one transport.

    ``fetch(endpoint, timeout)`` gets the bytes of a record over HTTP. ``offer`` is called with every record that the
    dialled key signed, ``failed`` for a dial that found nowhere to go. ``takes_local``: whether a name may lead to this
    machine, as in a mesh on one machine.
    """

    def __init__(
        self,
        transport: Transport,
        network: bytes,
        fetch: Fetch,
        offer: Callable[[bytes], object],
        failed: Callable[[LinkClosed], None],
        takes_local: Callable[[], bool] = lambda: False,
    ) -> None:
        self._transport = transport
        self._network = network
        self._fetch = fetch
        self._offer = offer
        self._failed = failed
        self._takes_local = takes_local
        self._tasks: dict[PeerKey, asyncio.Task[None]] = {}
        # Addresses that were dialled although they served no record, the latest last.
        self._silent: dict[tuple[PeerKey, Endpoint], None] = {}

    def dial(self, key: PeerKey, endpoints: tuple[Endpoint, ...]) -> None:
        """Start a dial; it replaces one to the same peer that is still under way."""
        if (task := self._tasks.get(key)) is not None:
            task.cancel()
        task = asyncio.get_running_loop().create_task(self._try(key, endpoints), name=f"zmesh dial {key.hex()[:12]}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._tasks.pop(key) if self._tasks.get(key) is done else None)

    def cancel(self, key: PeerKey) -> None:
        """Stop dialling: the peer was hung up. Nothing is reported."""
        if (task := self._tasks.pop(key, None)) is not None:
            task.cancel()

    def join(self, network: bytes) -> None:
        """The node is in another mesh from now on."""
        self._network = network

    async def stop(self) -> None:
        """Cancel all dials under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _try(self, key: PeerKey, endpoints: tuple[Endpoint, ...]) -> None:
        try:
            await self._dial(key, endpoints)
        except Exception as error:  # noqa: BLE001 - our own bug, logged in full; unreported, the link would wait on
            _log.error("dial_failed", peer=key.hex(), exc_info=error)
            self._failed(LinkClosed(key, f"dialling failed: {type(error).__name__}"))

    async def _dial(self, key: PeerKey, endpoints: tuple[Endpoint, ...]) -> None:
        why = "no address is known"
        last: dict[tuple[PeerKey, Endpoint], Endpoint] = {}
        for endpoint in endpoints:
            addresses, problem = await self._find(endpoint)
            for address in addresses:
                if (key, address) in self._silent:
                    last.setdefault((key, address), endpoint)
                elif (problem := await self._knock(key, address)) is None:
                    return
            why = why if problem is None else f"{endpoint}: {problem}"
        for place in [place for place in self._silent if place in last]:
            problem = await self._knock(*place)
            if problem is None:
                return
            why = f"{last[place]}: {problem}"
        self._failed(LinkClosed(key, why))

    async def _find(self, endpoint: Endpoint) -> tuple[list[Endpoint], str | None]:
        """The addresses of a front door; or none, and why."""
        try:
            addresses = (await resolve(endpoint))[:MAX_ADDRESSES]
        except TimeoutError:
            return [], f"its name did not resolve within {RESOLVE_SECONDS:g} s"
        except OSError as error:
            return [], error.strerror or str(error)
        if self._is_trap(endpoint, addresses):
            return [], "its name resolves to an address of this machine"
        return addresses, None

    async def _knock(self, key: PeerKey, address: Endpoint) -> str | None:
        """Dial what an address offers, or return why it offers nothing."""
        record, problem = await self._ask(key, address)
        if problem is not None:
            return problem
        self._silent.pop((key, address), None)
        if record is None:
            self._silent[key, address] = None
            if len(self._silent) > MAX_SILENT:
                del self._silent[next(iter(self._silent))]
        self._transport.dial(key, _routes(address, record))
        return None

    def _is_trap(self, endpoint: Endpoint, addresses: list[Endpoint]) -> bool:
        """Whether a name that looks like another machine's leads to this one: its DNS may be in a stranger's hands."""
        is_name = all(address.host != endpoint.host for address in addresses)
        led = any(is_local(address.host) for address in addresses)
        return is_name and led and not is_local(endpoint.host) and not self._takes_local()

    async def _ask(self, key: PeerKey, address: Endpoint) -> tuple[Record | None, str | None]:
        """The record that an address serves, if any; or why there is nothing to dial."""
        try:
            encoded = await self._fetch(address, FETCH_SECONDS)
        except ConnectionError as error:
            return None, error.strerror or "nobody listens there"
        except (OSError, TimeoutError, ValueError) as error:
            # Something listens but serves no record, such as a bare ROUTER. ZMTP may still work.
            _log.debug("no_record", peer=key.hex(), endpoint=str(address), why=str(error) or type(error).__name__)
            return None, None
        try:
            record = decode_record(encoded)
        except WireError as error:
            return None, f"its record is malformed ({error.detail})"
        if record.key != key:
            return None, f"the node there is {record.key.hex()[:12]}..., not the expected one"
        if record.network != self._network:
            return None, "the node there belongs to another mesh (MESH_NETWORK)"
        if not verify_record(record, verify):
            return None, "its record is not signed by its key"
        self._offer(encoded)
        return record, None


def _routes(door: Endpoint, record: Record | None) -> Routes:
    """Separate ports if the record names them, else the front door."""
    if record is None or record.router_port is None:
        return Routes(door)
    gossip = None if record.gossip_port is None else Endpoint(door.host, record.gossip_port)
    return Routes(Endpoint(door.host, record.router_port), gossip, spare=door)


async def resolve(endpoint: Endpoint) -> list[Endpoint]:
    """Every address of a host, in the resolver's order. Raises ``OSError``, and ``TimeoutError`` after 5 s."""
    host, port = endpoint
    if is_address(host):
        return [endpoint]
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await _look_up(host, port)
    except UnicodeError:
        # A label that is empty or too long: Python encodes names before it looks them up.
        raise socket.gaierror(socket.EAI_NONAME, "invalid host name") from None
    return list(dict.fromkeys(Endpoint(str(info[4][0]), port) for info in found))


async def _look_up(host: str, port: int) -> list[Any]:
    """``socket.getaddrinfo`` in a thread of its own. Raises ``OSError`` and ``UnicodeError``."""

    def look() -> list[Any]:
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        finally:
            _lookups.release()

    if not _lookups.acquire(blocking=False):
        raise OSError(errno.EAGAIN, "too many names are being looked up")
    try:
        answer = aside(look, f"zmesh lookup of {host}")
    except RuntimeError as error:
        _lookups.release()
        raise OSError(errno.EAGAIN, str(error)) from None
    return await answer
