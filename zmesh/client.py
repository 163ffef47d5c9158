"""``MeshNetworkClient``: one node of the mesh, as a service embeds it.

Rules
 1. Everything a caller can do wrong is refused here, with one sentence, before anything changes.
 2. The client holds no protocol state: it owns the parts (engine, transport, front door, registry, dispatcher) and
    their order of starting and stopping.
 3. Waiting is bounded: a direct send by its timeout, ``stop`` by ``stop_timeout``, ``broadcast`` by back-pressure that
    ends as soon as one link takes messages again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from zmesh.core import wire
from zmesh.core.actions import Composed, Deliver, Published, Resolved
from zmesh.core.bounds import MAX_DIRECT_TIMEOUT
from zmesh.core.engine import Engine
from zmesh.core.errors import ConfigError, NotRunningError
from zmesh.core.events import Broadcast, Compose, Located, RosterChanged, SendDirect, Start
from zmesh.core.types import EMPTY_ROSTER, Member, MessageType, PeerKey, SendResult
from zmesh.dialer import Dialer
from zmesh.dispatch import Callback, Dispatcher
from zmesh.handlers import Description, Handlers, Record, RecordPorts, Taken, default_handlers
from zmesh.identity import verify
from zmesh.log import get_logger
from zmesh.messages import FLRoundAnnouncement, MeshMessage, PeerInfo
from zmesh.node import Node, read_clocks
from zmesh.peer_table import PeerTable
from zmesh.seen_view import SeenView
from zmesh.server import Server
from zmesh.state import State
from zmesh.status import health, metrics

if TYPE_CHECKING:
    from zmesh.registry.port import Registry, ValidatorSet

DIRECT_SECONDS = 10.0
"""Seconds a direct send may take unless the caller says otherwise: two dials and several repetitions."""
MAX_PAUSE = 0.05
"""Seconds of one pause while every link refuses: long enough for a queue to drain, short enough to keep it fed."""
YIELD_EVERY = 16
"""Broadcasts after which a loop that only broadcasts lets the node read, too."""

_log = get_logger(__name__)


class MeshNetworkClient:
    """A validator's connection to all others.

    ``peer_id``: this node's name, unique in the mesh. ``listen_port``: the front door, HTTP and ZMTP (9090).
    ``blockchain_rpc``: the chain's endpoint (ws://localhost:9944). ``private_key``: 64 hex digits, 32 bytes or the path
    of a key file; None makes a new key. ``registry``: a path, or an object with the port of ``zmesh.registry``. All
    other keyword arguments are the fields of ``zmesh.config.Settings``. An explicit argument beats the environment
    variable, which beats the default.

    Raises ``ConfigError`` for anything unusable.
    """

    def __init__(
        self,
        peer_id: str | None = None,
        listen_port: int | None = None,
        blockchain_rpc: str | None = None,
        private_key: str | bytes | None = None,
        *,
        registry: Registry | str | None = None,
        **settings: Any,
    ) -> None:
        from zmesh.config import Settings  # takes longer to import than everything else together

        source = None if registry is None or isinstance(registry, str) or hasattr(registry, "__fspath__") else registry
        self.settings = Settings(
            peer_id=peer_id,
            listen_port=listen_port,
            blockchain_rpc=blockchain_rpc,
            private_key=private_key,
            registry=registry if source is None else None,
            **settings,
        )
        self._bounds = self.settings.bounds()
        self._identity = self.settings.identity()
        self._registry = source if source is not None else self._file_registry()
        self._state = State(self.settings.state_dir)
        self._dispatcher = Dispatcher(
            self.settings.handler_queue, self.settings.handler_concurrency, self.settings.handler_timeout
        )
        self._peers = PeerTable(self._identity.public, self.peer_id, self._bounds, read_clocks)
        self._roster = EMPTY_ROSTER
        self._node: Node | None = None
        self._handlers: Handlers | None = None
        self._server: Server | None = None
        self._dialer: Dialer | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._sends: dict[int, asyncio.Future[Resolved]] = {}
        self._stopping = False
        self._token = 0
        self._broadcasts = 0
        self._pause = 0.0

    def _file_registry(self) -> Registry | None:
        if self.settings.registry is None:
            return None
        from zmesh.registry.static import StaticRegistry

        return StaticRegistry(self.settings.registry)

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
        return self._identity.public.hex()

    @property
    def listen_port(self) -> int:
        """The front door's port; the bound one while running, which matters where 0 was asked for."""
        return self.settings.listen_port if self._server is None else self._server.port

    @property
    def is_running(self) -> bool:
        """Between ``start`` and ``stop``."""
        return self._node is not None

    @property
    def peers(self) -> PeerTable:
        """Everybody known, by peer_id. Assigning a ``PeerInfo`` connects, deleting disconnects."""
        return self._peers

    @peers.setter
    def peers(self, replacement: Mapping[str, PeerInfo]) -> None:
        raise ConfigError("mesh.peers itself cannot be replaced: assign to mesh.peers[peer_id], or update() it")

    @property
    def seen_messages(self) -> SeenView:
        """The ids of what was seen lately; ``len`` of it is how many."""
        return SeenView(None if self._node is None else self._node.engine)

    @property
    def message_handlers(self) -> Mapping[MessageType, Sequence[Callback]]:
        """What was registered, by type."""
        return self._dispatcher.handlers

    @property
    def _message_queue(self) -> Dispatcher:
        """``qsize()`` of it is the longest queue before a handler."""
        return self._dispatcher

    @property
    def handlers(self) -> Handlers:
        """The built-in protocol: ``rounds``, ``votes`` (with ``tally``), ``records``. Raises ``NotRunningError``."""
        if self._handlers is None:
            raise NotRunningError("the built-in handlers live while the client runs: start() it first")
        return self._handlers

    # ------------------------------------------------------------ starting and stopping

    async def start(self) -> None:
        """Bind, read the registry, and begin to connect. Returns at once: peers come up in their own time.

        Raises ``ConfigError`` (port in use, registry malformed ...); nothing is left behind then.
        """
        if self._node is not None:
            raise NotRunningError(f"{self.peer_id} runs already: stop() it before starting it again")
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        from zmesh.transports.zeromq import ZeroMqTransport

        settings, identity = self.settings, self._identity
        network = wire.network_id(settings.network)
        epoch = await asyncio.to_thread(self._state.next_epoch, time.time())
        rng = random.Random()  # chooses peers and waits, no secrets
        ports = RecordPorts(identity, network, verify, self._admits)
        account = await self._own_account()
        self._handlers = default_handlers(
            self._heartbeat,
            ports,
            account=account,
            heartbeat_interval=settings.heartbeat_interval,
            phase=rng.random(),
        )
        engine = Engine(identity, network, epoch, rng, bounds=self._bounds, handlers=self._handlers)
        transport = ZeroMqTransport(
            identity,
            host=settings.listen_host,
            router_port=settings.router_port,
            gossip_port=settings.gossip_port,
        )
        self._server = server = Server(settings, self.health, self.metrics, self._record)
        self._dialer = Dialer(transport, network, server.fetch, self._learnt, self._submit_closed)
        node = Node(engine, transport, self, self._dialer, verify_threads=settings.verify_threads)
        node.start()
        self._node = node
        bound = await transport.start(node.receive)
        await server.start(bound.direct)
        self._dispatcher.reopen()
        self._handlers.records.describe(
            Description(self.peer_id, server.advertised(), bound.direct.port, bound.gossip and bound.gossip.port)
        )
        now = read_clocks()
        engine.peers.reputation.restore(await asyncio.to_thread(self._state.reputation), now.mono)
        node.submit(Start())
        self._peers.attach(engine, node.submit)
        node.submit(RosterChanged(self._roster))
        self._spawn(self._keep_state(), "state")
        self._spawn(self._probe_chain(), "chain probe")
        _log.info("started", peer_id=self.peer_id, public_key=self.public_key, listen_port=self.listen_port)

    async def _own_account(self) -> str | None:
        """Read the registry for the first time; the account it has for this node's key, if any."""
        if self._registry is None:
            return None
        await self._registry.start(self._registered)
        own = self._roster.by_key.get(self._identity.public)
        if own is None:
            _log.warning(
                "not_in_registry",
                public_key=self.public_key,
                registry=self._registry.describe(),
                effect="other nodes will refuse this one",
            )
        return None if own is None else own.account

    async def stop(self) -> None:
        """Say goodbye, let handlers finish what is queued, and close, within ``stop_timeout``. Safe to call twice."""
        if not self._stopping:
            self._stopping = True
            try:
                await self._close_all()
            finally:
                self._stopping = False

    async def _close_all(self) -> None:
        """Close whatever ``_start`` got to, in the opposite order."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._registry is not None:
            await self._registry.stop()
        node = self._node
        if node is not None:
            # Handlers first, while the node can still send what they answer; what comes in meanwhile is told busy.
            await self._dispatcher.close(self.settings.stop_timeout / 2)
            self._node = None
            self._peers.detach()
            await node.stop(self.settings.stop_timeout / 2)
            scores = node.engine.peers.reputation.snapshot(read_clocks().mono)
            await asyncio.to_thread(self._state.save_reputation, scores)
            _log.info("stopped", peer_id=self.peer_id)
        if self._dialer is not None:
            await self._dialer.stop()
        if self._server is not None:
            await self._server.stop()
        self._server = self._dialer = self._handlers = None

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

        Raises ``PayloadError`` for a payload that cannot travel, ``NotRunningError`` before ``start``.
        """
        key = None if recipient is None else self._resolve(recipient)
        event = Compose(MessageType(message_type), payload, ttl, key)
        composed = next(action for action in self._running().ask(event) if isinstance(action, Composed))
        return MeshMessage.of(composed.envelope, self._myself(), payload)

    async def broadcast(
        self, message_type: MessageType, payload: Mapping[str, Any], ttl: int | None = None
    ) -> MeshMessage:
        """Sign a message and gossip it to everybody; ``ttl`` in hops, None lets the size of the mesh decide.

        Returns once it is on its way and kept for repair. Waits while every link refuses more: that is the
        back-pressure of a flood. Raises ``PayloadError`` for a payload that cannot travel or is over 64 KiB.
        """
        node = self._running()
        actions = node.ask(Broadcast(MessageType(message_type), payload, ttl))
        published = next(action for action in actions if isinstance(action, Published))
        self._broadcasts += 1
        if published.links and node.refused_of(published.envelope.id) >= len(published.links):
            self._pause = min(MAX_PAUSE, max(0.001, self._pause * 2))
            await asyncio.sleep(self._pause)
        else:
            self._pause = 0.0
            if self._broadcasts % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return MeshMessage.of(published.envelope, self._myself(), payload)

    async def send(
        self,
        recipient_id: str,
        message_type: MessageType,
        payload: Mapping[str, Any],
        timeout: float = DIRECT_SECONDS,  # noqa: ASYNC109  # part of the protocol: the recipient refuses what is older
    ) -> SendResult:
        """Send to one peer, named by peer_id, account or public key, until it acknowledges.

        ``timeout``: seconds, at most 110. True exactly when the recipient verified the message and queued it for its
        handler. Raises ``PayloadError`` for a payload that cannot travel; being too large is a result.
        """
        node = self._running()
        if not 0 < timeout <= MAX_DIRECT_TIMEOUT:
            raise ConfigError(f"timeout is {timeout} s: above 0 and at most {MAX_DIRECT_TIMEOUT:g} is right")
        found = node.engine.peers.named(recipient_id)
        if len(found) != 1:
            return SendResult.AMBIGUOUS if found else SendResult.UNREACHABLE
        self._token = token = self._token + 1
        future: asyncio.Future[Resolved] = asyncio.get_running_loop().create_future()
        self._sends[token] = future
        try:
            node.ask(SendDirect(found[0].key, MessageType(message_type), payload, timeout, token))
            outcome = await future
        finally:
            self._sends.pop(token, None)
        if outcome.skew_ms is not None:
            _log.warning("refused_for_clock", recipient=recipient_id, our_clock_ahead_ms=outcome.skew_ms)
        return outcome.result

    async def announce_fl_round(  # noqa: PLR0913  # the guide's own signature
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
        """Announce a federated-learning round to everybody; ``deadline`` in seconds from now.

        The payload carries the deadline as Unix seconds too, and whatever ``extra`` holds.
        """
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
        """Send a model delta (by reference, or in ``extra``) straight to one peer; see ``send``."""
        payload = {"round_id": round_id, "model_cid": model_cid, "quality_score": quality_score, **extra}
        return await self.send(recipient_id, MessageType.MODEL_DELTA_TRANSFER, payload, timeout)

    # The guide's names.
    _broadcast_message = broadcast
    _create_message = create_message

    # ------------------------------------------------------------ receiving

    def register_handler(self, message_type: MessageType, handler: Callback) -> None:
        """Call ``handler(message)`` for every message of this type, besides those registered already.

        Coroutine functions and plain callables alike; a plain one must not block, for it runs on the event loop.
        """
        if not callable(handler):
            raise ConfigError(f"a handler is a callable that takes one message, not {type(handler).__name__}")
        self._dispatcher.register(MessageType(message_type), handler)

    def receive_messages(self) -> AsyncIterator[MeshMessage]:
        """``async for message in mesh.receive_messages()``: all types, from now until ``stop``."""
        return self._dispatcher.iterate()

    async def discover_peers(self) -> list[PeerInfo]:
        """Ask the registry now, and give everybody who belongs, those added by hand included.

        A registry that cannot be read is warned about once; the peers known so far are the answer then.
        """
        node = self._running()
        if self._registry is not None:
            self._registered(await self._registry.read())
        return [self._peers.describe(member) for member in node.engine.peers]

    # ------------------------------------------------------------ what the parts ask of it

    def deliver(self, action: Deliver) -> bool:
        """For the node: queue a message for the handlers."""
        return self._dispatcher.offer(MeshMessage.of(action.envelope, action.sender, action.payload))

    def resolved(self, outcome: Resolved) -> None:
        """For the node: a direct send ended."""
        future = self._sends.get(outcome.token)
        if future is not None and not future.done():
            future.set_result(outcome)

    def health(self) -> dict[str, Any]:
        """What GET /health says."""
        if self._node is None:
            return {"status": "stopped", "peer_id": self.peer_id, "peers_count": 0, "running": False}
        engine = self._node.engine
        status = None if self._registry is None else self._registry.status()
        return health(self.peer_id, engine, len(self._peers), status)

    def metrics(self) -> str:
        """What GET /metrics says."""
        node, server = self._running(), self._server
        layers = {
            "transport": node.transport.counters,
            "front_door": {} if server is None else server.counters,
            "handler": self._dispatcher.counters,
            "record": {} if self._handlers is None else self._handlers.records.counters,
        }
        return metrics(node.engine, len(self._peers), layers)

    def _record(self) -> bytes:
        own = None if self._handlers is None else self._handlers.records.own
        return b"" if own is None else own.encoded

    def _heartbeat(self) -> Mapping[str, Any]:
        return {"status": self.health()["status"], "peers_count": len(self._peers)}

    def _admits(self, key: PeerKey) -> bool:
        return self._node is not None and key in self._node.engine.peers

    def _learnt(self, record: Record) -> None:
        """A dial brought a record; gossip brings its own news to the engine by itself."""
        if self._node is not None and self.handlers.records.offer(record.encoded) is Taken.NEW:
            self._node.submit(Located(record.key, record.endpoints))

    def _submit_closed(self, event: Any) -> None:
        if self._node is not None:
            self._node.submit(event)

    def _registered(self, found: ValidatorSet) -> None:
        if found.roster is self._roster:
            return
        self._roster = found.roster
        if self._node is not None:
            self._node.submit(RosterChanged(found.roster))

    # ------------------------------------------------------------ in the background

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"zmesh {name} of {self.peer_id}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _keep_state(self) -> None:
        """Save reputations now and then, so that a crash loses little."""
        while True:
            await asyncio.sleep(self._state.interval)
            scores = self._running().engine.peers.reputation.snapshot(read_clocks().mono)
            await asyncio.to_thread(self._state.save_reputation, scores)

    async def _probe_chain(self) -> None:
        """One clear warning where a chain was named and does not answer; the mesh runs without it."""
        if "blockchain_rpc" not in self.settings.model_fields_set:
            return
        from zmesh.registry.chain import probe_rpc

        problem = await probe_rpc(self.settings.blockchain_rpc, timeout=5.0)
        if problem is not None:
            _log.warning("chain_unreachable", problem=problem, effect="the mesh goes on with the peers it knows")

    # ------------------------------------------------------------ small things

    def _running(self) -> Node:
        if self._node is None:
            raise NotRunningError(f"{self.peer_id} is not running: call start(), or use `async with`")
        return self._node

    def _myself(self) -> Member:
        listed = self._running().engine.peers.roster.by_key.get(self._identity.public)
        return listed or Member(self._identity.public, self.public_key, self.peer_id)

    def _resolve(self, name: str) -> PeerKey:
        found = self._running().engine.peers.named(name)
        if len(found) != 1:
            raise ConfigError(f"recipient {name!r} names {len(found)} known peers: right is a name that means one")
        return found[0].key
