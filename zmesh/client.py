"""``MeshNetworkClient``: one node of the mesh, as a service embeds it.

Rules
 1. Everything a caller can do wrong is refused here, with one sentence, before anything changes.
 2. The client holds no protocol state: ``running.py`` has what lives between ``start`` and ``stop``.
 3. Waiting is bounded: a direct send by its timeout, ``stop`` by ``stop_timeout`` and three quarters of that for a disk
    and a registry that hang, ``broadcast`` by ``MAX_PAUSE``, and by the account's rate, since others would drop what is
    sent faster.
 4. A started node is always stopped completely: a task of its own does it, even if the callers of ``stop`` give up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from zmesh.construction import named_registry, own_registry, settings_of
from zmesh.core.actions import Composed, Published
from zmesh.core.bounds import MAX_DIRECT_TIMEOUT
from zmesh.core.errors import ConfigError, NotRunningError, PayloadError
from zmesh.core.events import Broadcast, Compose
from zmesh.core.sentence import shown
from zmesh.core.types import MessageType, PeerKey, SendResult
from zmesh.dispatch import Dispatcher, MessageHandler
from zmesh.handlers import Handlers
from zmesh.handlers.rounds import MAX_AMOUNT
from zmesh.handlers.schema import number
from zmesh.log import get_logger
from zmesh.messages import FLRoundAnnouncement, MeshMessage, PeerInfo
from zmesh.node import read_clocks
from zmesh.peer_table import PeerTable
from zmesh.running import Running, Setup
from zmesh.seen_view import SeenView
from zmesh.state import State

if TYPE_CHECKING:
    from zmesh.arguments import SettingsArguments
    from zmesh.config import Settings
    from zmesh.registry.port import Registry

DIRECT_SECONDS = 10.0
"""Seconds a direct send may take unless the caller says otherwise: two dials and several repetitions."""
LINKS_SECONDS = 30.0
"""Seconds that ``wait_for_links`` waits by default: the longest pause between dials of an absent peer."""
MAX_PAUSE = 0.05
"""Seconds of one pause while every link refuses: long enough for a queue to drain, short enough to keep it fed."""
MAX_WAIT = 1.0
"""Seconds of one wait for the account's own rate, after which the client checks that the node still runs."""
YIELD_EVERY = 16
"""Broadcasts after which a loop that only broadcasts also lets the node read."""
_KINDS = {str(kind): kind for kind in MessageType}
"""By name; a member finds itself."""

_FROM_NOW = number(0, MAX_AMOUNT)

_log = get_logger(__name__)


class MeshNetworkClient:
    """A validator's connection to all others. Use it with ``async with``, or call ``start`` and ``stop``.

    ``peer_id``: this node's name, unique in the mesh. ``listen_port``: the port of the front door, HTTP and ZMTP
    (9090). ``blockchain_rpc``: the chain's RPC endpoint (ws://localhost:9944). ``private_key``: 64 hex digits, 32 bytes
    or the path of a key file; without one, a new key is made. ``registry``: a path, ``substrate``, or an implementation
    of ``zmesh.registry.Registry``. All other keyword arguments are fields of ``zmesh.config.Settings``. An argument
    beats the environment variable, which beats the default. ``settings``: ready-made ``Settings``, which only a
    registry object may go with.

    Raises ``ConfigError`` for anything unusable.
    """

    def __init__(
        self,
        peer_id: str | None = None,
        listen_port: int | None = None,
        blockchain_rpc: str | None = None,
        private_key: str | bytes | Path | None = None,
        *,
        registry: Registry | str | Path | None = None,
        settings: Settings | None = None,
        **others: Unpack[SettingsArguments],
    ) -> None:
        source = own_registry(registry)
        given = {
            "peer_id": peer_id,
            "listen_port": listen_port,
            "blockchain_rpc": blockchain_rpc,
            "private_key": private_key,
            "registry": registry if source is None else None,
            **others,
        }
        self.settings = settings_of(settings, {name: value for name, value in given.items() if value is not None})
        bounds, identity = self.settings.bounds(), self.settings.identity()
        delegation = self.settings.delegated(identity.public)
        genesis = self.settings.chain(delegation)
        self._setup = Setup(
            settings=self.settings,
            bounds=bounds,
            identity=identity,
            delegation=delegation,
            genesis=genesis,
            registry=source if source is not None else named_registry(self.settings, genesis),
            state=State(self.settings.state_dir),
            dispatcher=Dispatcher(
                self.settings.handler_queue, self.settings.handler_concurrency, self.settings.handler_timeout
            ),
            peers=PeerTable(identity.public, self.peer_id, bounds, read_clocks),
        )
        self._life: Running | None = None
        self._starting: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Task[Any]] = set()
        """Tasks that wait for ``stop`` to finish, handlers among them."""
        self._broadcasts = 0
        self._pause = 0.0

    def __repr__(self) -> str:
        state = "running" if self.is_running else "stopped"
        return f"<MeshNetworkClient {self.peer_id} {self.public_key[:12]} {state}>"

    # ------------------------------------------------------------ what it is

    @property
    def peer_id(self) -> str:
        """This node's name."""
        return self.settings.peer_id

    @property
    def public_key(self) -> str:
        """64 hex digits: what others need to know to let this node in."""
        return self._setup.identity.public.hex()

    @property
    def listen_port(self) -> int:
        """The port of the front door; while running, the one that was bound, which matters if 0 was asked for."""
        return self.settings.listen_port if self._life is None else self._life.server.port

    @property
    def is_running(self) -> bool:
        """True between ``start`` and ``stop``."""
        return self._life is not None and self._life.is_open

    @property
    def peers(self) -> PeerTable:
        """All other known peers, by peer_id: a mapping that can be written to, before ``start`` as well.

        Assigning a ``PeerInfo`` vouches for a peer by hand and connects; deleting takes that back. An entry with this
        node's own key tells it its own account and stake. ``PeerTable`` says what is refused. The table itself cannot
        be replaced: that raises ``ConfigError``.
        """
        return self._setup.peers

    @peers.setter
    def peers(self, replacement: Mapping[str, PeerInfo]) -> None:
        raise ConfigError("mesh.peers itself cannot be replaced: assign to mesh.peers[peer_id], or update() it")

    @property
    def seen_messages(self) -> SeenView:
        """The ids of the messages seen in the last two minutes; its ``len`` is their number."""
        return SeenView(self._life.engine if self._life is not None and self._life.is_open else None)

    @property
    def message_handlers(self) -> Mapping[MessageType, Sequence[MessageHandler]]:
        """The registered handlers, by message type."""
        return self._setup.dispatcher.handlers

    @property
    def _message_queue(self) -> Dispatcher:
        """Its ``qsize()`` is the length of the longest handler queue."""
        return self._setup.dispatcher

    @property
    def handlers(self) -> Handlers:
        """The built-in handlers: ``rounds``, ``votes`` (with ``tally``), ``records``. Raises ``NotRunningError``."""
        return self._running().handlers

    # ------------------------------------------------------------ starting and stopping

    async def start(self) -> None:
        """Bind, read the registry, and begin to connect. Returns once it listens; peers connect in their own time.

        A delegation that was renewed since the last start is picked up. A chain has some seconds for its first answer
        (``zmesh.registry.chain``); the node also starts without one. Raises ``ConfigError`` (port in use, malformed
        registry ...), ``ZmeshError`` if libzmq does not keep strangers out, ``NotRunningError`` if it is already
        running or is stopped meanwhile; nothing is then left behind.
        """
        if self._life is not None:
            raise NotRunningError(f"{self.peer_id} is already running: stop() it before starting it again")
        self._take_renewed_delegation()
        self._life = Running(self._setup)
        self._starting = asyncio.ensure_future(self._life.start())
        try:
            await self._starting
        except BaseException as error:
            was_stopped = self._ending is not None
            await self.stop()
            if was_stopped and isinstance(error, asyncio.CancelledError) and not _is_cancelled():
                raise NotRunningError(f"{self.peer_id} was stopped while it was starting") from None
            raise
        self._starting = None
        if self._ending is not None:  # stop() was called just as the start finished
            await self.stop()
            raise NotRunningError(f"{self.peer_id} was stopped while it was starting")
        _log.info("started", peer_id=self.peer_id, public_key=self.public_key, **self._life.facts())

    def _take_renewed_delegation(self) -> None:
        """A delegation is renewed every month, and an embedding service should not need a new client for that."""
        delegation = self.settings.delegated(self._setup.identity.public)
        if self.settings.chain(delegation) != self._setup.genesis:
            raise ConfigError(f"the delegation of {self.peer_id} is for another chain than before: make a new client")
        self._setup = replace(self._setup, delegation=delegation)

    async def stop(self) -> None:
        """Let handlers finish what is queued, say goodbye and close, within ``stop_timeout`` seconds.

        Safe to call twice: all callers wait for the same shutdown, which completes even if they give up waiting. May be
        called from a handler, which is then not waited for. A disk that hangs may take a quarter as long again, and a
        registry of your own half as long; what its ``stop`` raises is raised here, once everything is closed. Raises
        ``NotRunningError`` on another event loop than that of ``start``.
        """
        if self._life is None:
            return
        if self._life.loop.is_running():  # a loop that was closed under the node cannot end it
            self._life.refuse_elsewhere()
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end(self._life))
        if (task := asyncio.current_task()) is not None:
            self._waiting.add(task)
        await asyncio.shield(self._ending)

    async def _end(self, life: Running) -> None:
        starting = self._starting
        try:
            if starting is not None:
                starting.cancel()
                await asyncio.wait([starting])
            await life.stop(self._waiting)
        finally:
            self._life = self._starting = self._ending = None
            self._waiting.clear()
        if starting is None:
            _log.info("stopped", peer_id=self.peer_id)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    # ------------------------------------------------------------ sending

    def create_message(
        self,
        message_type: MessageType,
        payload: Mapping[str, Any],
        ttl: int | None = None,
        recipient: str | None = None,
    ) -> MeshMessage:
        """Build and sign a message without sending it.

        ``ttl``: hops, 1 to 255, or None to choose by the size of the mesh; it does not apply to a direct message.
        ``recipient``: the peer_id, account or public key of one known peer, for a direct message; None for gossip.
        Raises ``PayloadError`` for a payload or ttl that cannot be sent, ``ConfigError`` for an unknown type or
        recipient, and ``NotRunningError`` before ``start``.
        """
        key = None if recipient is None else self._resolve(recipient)
        event = Compose(_kind(message_type), payload, ttl, key)
        node = self._here().node
        composed = next(action for action in node.ask(event) if isinstance(action, Composed))
        return MeshMessage.of(composed.envelope, node.engine.peers.myself, payload)

    async def broadcast(
        self, message_type: MessageType, payload: Mapping[str, Any], ttl: int | None = None
    ) -> MeshMessage:
        """Sign a message and gossip it to all peers; ``ttl``: 1 to 255 hops, or None to choose by the size of the mesh.

        Waits first while this account has sent more than others accept from it: ``author_burst`` messages at once and
        ``author_rate`` per second, of 2 KiB each. A vote or proposal waits until it is in ``state_dir``, if there is
        one. On return the message is on its way, or kept to be offered again. If every link refused it, the call
        returns up to 50 ms later, so that a flood does not outrun its links. Raises ``PayloadError`` for a payload that
        cannot be sent or lacks what its type requires, ``PayloadTooLargeError`` for one over 64 KiB, ``SelfHarmError``
        for one that contradicts what this account said before, as far as this node knows, ``NotPledgedError`` if it
        cannot be written to ``state_dir``, ``ConfigError`` for an unknown type, and ``NotRunningError`` before
        ``start``.
        """
        kind = _kind(message_type)
        life = self._here()
        while (wait := life.engine.clear_at - time.monotonic()) > 0:
            await asyncio.sleep(min(wait, MAX_WAIT))
            life = self._here()
        actions = await life.publish(Broadcast(kind, payload, ttl))
        published = next(action for action in actions if isinstance(action, Published))
        message = MeshMessage.of(published.envelope, life.engine.peers.myself, payload)
        self._broadcasts += 1
        if published.links and life.reached_nobody(published.envelope):
            self._pause = min(MAX_PAUSE, max(0.001, self._pause * 2))
            await asyncio.sleep(self._pause)
        else:
            self._pause = 0.0
            if self._broadcasts % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return message

    async def send(
        self,
        recipient_id: str,
        message_type: MessageType,
        payload: Mapping[str, Any],
        timeout: float = DIRECT_SECONDS,  # noqa: ASYNC109  # part of the protocol: the recipient refuses what is older
    ) -> SendResult:
        """Send to one peer, named by peer_id, account or public key, until it acknowledges.

        ``timeout``: seconds, at most 110; giving up earlier does not recall the message. The result is true exactly if
        the recipient verified the message and queued it for its handlers, if it has any. Raises ``PayloadError`` for a
        payload that cannot be sent or lacks what its type requires; one that is too large is a result. Raises
        ``ConfigError`` for an invalid timeout or an unknown type, and ``NotRunningError`` before ``start``.
        """
        life = self._here()
        if not 0 < timeout <= MAX_DIRECT_TIMEOUT:
            raise ConfigError(f"timeout must be above 0 and at most {MAX_DIRECT_TIMEOUT:g} s, not {timeout} s")
        return await life.send(recipient_id, _kind(message_type), payload, timeout)

    async def announce_fl_round(  # noqa: PLR0913  # one for each field of the payload
        self,
        round_id: str,
        dataset_name: str,
        target_participants: int,
        deadline: float,
        *,
        reward_pool: float = 0,
        min_stake: float = 0,
        model_hash: str = "",
        **extra: Any,
    ) -> MeshMessage:
        """Announce a federated-learning round to all peers.

        ``deadline``: seconds from now; the payload carries it as Unix seconds, too. ``reward_pool``, for all together,
        and ``min_stake``, of each participant: amounts in the chain's smallest unit. ``target_participants``: a number
        of accounts. ``round_id``, ``dataset_name`` and ``model_hash``: at most 256 bytes each. ``extra``: further
        fields of the payload. Raises what ``broadcast`` raises.
        """
        if not _FROM_NOW(deadline):
            raise PayloadError(f"deadline must be a number of seconds from now, 0 or more, not {shown(deadline)}")
        announcement = FLRoundAnnouncement(
            round_id=round_id,
            dataset_name=dataset_name,
            target_participants=target_participants,
            deadline=time.time() + deadline,
            deadline_seconds=deadline,
            reward_pool=reward_pool,
            min_stake=min_stake,
            model_hash=model_hash,
        )
        return await self.broadcast(MessageType.FL_ROUND_START, {**announcement.to_dict(), **extra})

    async def send_model_delta(
        self,
        recipient_id: str,
        round_id: str,
        model_cid: str,
        quality_score: float,
        *,
        timeout: float = DIRECT_SECONDS,  # noqa: ASYNC109  # see ``send``
        **extra: Any,
    ) -> SendResult:
        """Send a model delta (by reference, or in ``extra``) straight to one peer.

        ``model_cid``: where the delta is stored, at most 256 bytes. ``quality_score``: 0 to 100. ``timeout``: seconds,
        at most 110. Returns and raises what ``send`` does.
        """
        payload = {"round_id": round_id, "model_cid": model_cid, "quality_score": quality_score, **extra}
        return await self.send(recipient_id, MessageType.MODEL_DELTA_TRANSFER, payload, timeout)

    # Aliases, for services written against these names.
    _broadcast_message = broadcast
    _create_message = create_message

    # ------------------------------------------------------------ receiving

    def register_handler(self, message_type: MessageType, handler: MessageHandler) -> None:
        """Call ``handler(message)`` for every message of this type, in addition to earlier handlers.

        Takes coroutine functions and plain callables, which run on the event loop and must not block. An awaitable that
        one returns is awaited; any other result is ignored. A call that waits for longer than ``handler_timeout`` is
        cancelled: long work belongs in a task of the application's own. All handlers of a message share one payload,
        and must only read it. Register before ``start``: messages that arrive earlier are not kept. Raises
        ``ConfigError`` for an unknown type or an object that is not callable.
        """
        if not callable(handler):
            raise ConfigError(
                f"handler must be a callable that takes one message, not a value of type {type(handler).__name__}"
            )
        self._setup.dispatcher.register(_kind(message_type), handler)

    def receive_messages(self) -> AsyncGenerator[MeshMessage]:
        """``async for message in mesh.receive_messages()``: all types, from this call until ``stop``.

        At most ``handler_queue`` messages wait for an iterator: one that reads too slowly misses some. They count as
        ``missed_queue_full``, or as ``refused_queue_full`` if no handler had room for them either.
        """
        return self._setup.dispatcher.iterate()

    async def discover_peers(self) -> list[PeerInfo]:
        """Ask the registry now, and return all members but this node, including peers added by hand.

        For validators whose signed record has not arrived yet, only the account and what the chain says about it are
        known: their ``public_key`` is empty, and their account stands in for their name.

        A registry that cannot be read is warned about once; the answer is then the peers known so far. Raises
        ``NotRunningError`` before ``start`` or if the node is stopped meanwhile.
        """
        life = self._here()
        if self._setup.registry is not None:
            life.belonging.registered(await self._setup.registry.read())
            life = self._running()  # it may have been stopped meanwhile
        met = [self._setup.peers.describe(member) for member in life.engine.peers]
        return met + [PeerInfo.unmet(account) for account in life.belonging.strangers()]

    async def wait_for_links(self, count: int = 1, timeout: float | None = LINKS_SECONDS) -> None:  # noqa: ASYNC109
        """Return once messages flow directly between this node and ``count`` peers.

        Waiting is optional: an earlier broadcast also reaches those who are linked later, with their link or by repair
        some seconds after it. Raises ``TimeoutError``, which says why, after ``timeout`` seconds (None: never),
        ``ConfigError`` for a negative count, and ``NotRunningError`` before ``start`` or if the node is stopped
        meanwhile.
        """
        life = self._here()
        if count < 0:
            raise ConfigError(f"count must be a number of peers, 0 or more, not {count}")
        try:
            async with asyncio.timeout(timeout):
                await life.links(count)
        except TimeoutError:
            health = self.health()
            said = "; ".join([f"{health.get('links_live', 0)} of {count} are up", *health.get("why", ())])
            raise TimeoutError(f"{self.peer_id} waited {timeout:g} s for links: {said}") from None
        self._running()

    # ------------------------------------------------------------ how it is

    def health(self) -> dict[str, Any]:
        """The content of GET /health, as plain values."""
        if not self.is_running:
            return {"status": "stopped", "peer_id": self.peer_id, "peers_count": 0, "running": False}
        return self._running().health()

    def metrics(self) -> str:
        """The text of GET /metrics. Raises ``NotRunningError``."""
        return self._running().metrics()

    # ------------------------------------------------------------ small things

    def _running(self) -> Running:
        if self._life is None or not self._life.is_open:
            raise NotRunningError(f"{self.peer_id} is not running: call start(), or use `async with`")
        return self._life

    def _here(self) -> Running:
        """For calls that make the node take a step: only its own event loop may."""
        life = self._running()
        life.refuse_elsewhere()
        return life

    def _resolve(self, name: str) -> PeerKey:
        found = self._running().engine.peers.named(name)
        if len(found) != 1:
            raise ConfigError(f"recipient {name!r} must name exactly one known peer, not {len(found)}")
        return found[0].key


def _kind(value: MessageType) -> MessageType:
    """The message type that ``value`` is or names."""
    try:
        return _KINDS[value]
    except (KeyError, TypeError):
        raise ConfigError(f"message type must be one of {', '.join(MessageType)}, not {shown(value)}") from None


def _is_cancelled() -> bool:
    """Whether the current task is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
