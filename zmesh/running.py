"""One life of a node, from ``start`` to ``stop``: builds the parts, connects them, and takes them apart again.

Rules
 1. As ``start`` gets to a part, it registers how to end it. ``stop`` ends the parts in reverse order, however far
    ``start`` got, and goes on to the next whatever one of them raises.
 2. Handlers end first, while the node can still send their answers: acknowledged messages are processed, as far as
    ``stop_timeout`` allows. The door ends after the node, whose goodbyes may go through it.
 3. ``Setup`` holds what outlives a stop: settings, key, registered handlers, peers added by hand.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Collection, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zmesh.belonging import Belonging
from zmesh.belonging import Ports as BelongingPorts
from zmesh.bootstrap import Bootstrap
from zmesh.bootstrap import Ports as BootstrapPorts
from zmesh.core.actions import Action, Deliver, Resolved
from zmesh.core.bounds import AHEAD, AHEAD_MS, PAST_MS, Bounds
from zmesh.core.engine import Engine
from zmesh.core.envelope import Composer, Envelope
from zmesh.core.errors import NotRunningError
from zmesh.core.events import Broadcast, Event, HandlersChanged, LinkClosed, Located, SendDirect, Start
from zmesh.core.types import Endpoint, MessageType, SendResult
from zmesh.delegation import Delegation
from zmesh.dialer import Dialer, resolve
from zmesh.dispatch import Dispatcher
from zmesh.handlers import Description, Offer, RecordOutcome, RecordPorts, default_handlers
from zmesh.http import Answers
from zmesh.http_client import fetch_record, post_record
from zmesh.identity import Identity, verify
from zmesh.log import get_logger
from zmesh.messages import MeshMessage
from zmesh.node import Node, read_clocks
from zmesh.peer_table import PeerTable
from zmesh.pledging import Pledging
from zmesh.registry.port import RegistryStatus
from zmesh.saving import Saving
from zmesh.server import Server
from zmesh.state import Scores, State
from zmesh.status import NOBODY, Gauges, Troubles, health, metrics
from zmesh.version import VERSION

if TYPE_CHECKING:
    from zmesh.config import Settings
    from zmesh.registry.port import Registry

NETWORK_DIGITS = 16
"""Hexadecimal digits of a network id that are logged: enough to tell one mesh from another."""

LEAD = AHEAD / 2
"""Seconds that the epoch of a start may be ahead of the clock: each start takes a higher one, so several starts within
one second run ahead of it. Half of what peers accept, since their clocks may be behind this one."""

TWIN = (
    "this node's key was used by a process that started later, and two minutes after that peers refuse this node's"
    " messages: stop the other process, if it still runs, and restart this one"
)
"""Of a node that was started twice, or was started before with a clock that was ahead."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a node is made of, and what outlives a stop."""

    settings: Settings
    bounds: Bounds
    identity: Identity
    delegation: Delegation | None
    """Of the account that the key speaks for."""
    genesis: bytes
    """32 bytes if it is known which chain this is, else empty."""
    registry: Registry | None
    state: State
    dispatcher: Dispatcher
    peers: PeerTable


class Running:
    """Also the node's ``Application``: the engine's deliveries and results arrive here."""

    def __init__(self, setup: Setup) -> None:
        from zmesh.transports.zeromq import ZeroMqTransport

        settings, identity = setup.settings, setup.identity
        self._setup = setup
        self.loop = asyncio.get_running_loop()
        self._ends = AsyncExitStack()
        self._waiting: Collection[asyncio.Task[Any]] = ()
        self._background: set[asyncio.Task[None]] = set()
        self._broken: list[str] = []
        """Background tasks that ended, one sentence each."""
        self._started = 0.0
        self._results: Counter[SendResult] = Counter()
        self._delivered: Counter[MessageType] = Counter()
        self._sends: dict[int, asyncio.Future[Resolved]] = {}
        self._token = 0
        self.belonging = Belonging(settings.network, setup.genesis, identity.public, settings.admission)
        self._transport = ZeroMqTransport(
            identity,
            host=settings.listen_host,
            router_port=settings.router_port,
            gossip_port=settings.gossip_port,
        )
        self.server = Server(settings, Answers(self.health, self.metrics, self._record, self._post))
        self._dialer = Dialer(
            self._transport,
            self.belonging.network,
            fetch_record,
            self._offer,
            self._submit,
            lambda: self.handlers.records.takes_local,
        )
        self._rng = random.Random()  # for choosing peers and waiting times, not for secrets
        ports = BootstrapPorts(
            resolve,
            fetch_record,
            post_record,
            own=lambda: self._record() if setup.registry is None or self.belonging.is_told else b"",
            offer=self._offer,
            located=lambda key, places: self.node.submit(Located(key, places)),
            toward=self._toward,
            withdraw=self._withdraw,
            links=lambda: len(self.engine.live),
            known=self._records_known,
        )
        self._bootstrap = Bootstrap(settings.seeds(), identity.public, ports, self._rng, time.monotonic)
        self._node: Node | None = None
        self._pledging: Pledging | None = None
        self._saving = Saving(setup.state, self._learnt)
        self._link_news = asyncio.Event()
        self.is_open = False
        """Whether the application may send: from the moment that messages may come in until the handlers are done."""

    @property
    def node(self) -> Node:
        """The shell around the engine; it exists once ``start`` has read the registry."""
        assert self._node is not None
        return self._node

    @property
    def engine(self) -> Engine:
        """The protocol's state."""
        return self.node.engine

    # ------------------------------------------------------------ starting

    async def start(self) -> None:
        """Bind, read the registry, and begin to connect. Raises ``ConfigError``; ``stop`` must be called then, too."""
        setup, settings, identity, ends = self._setup, self._setup.settings, self._setup.identity, self._ends
        ends.enter_context(setup.state.held())
        self._started = time.time()
        self._epoch = epoch = await asyncio.to_thread(setup.state.next_epoch, self._started)
        await asyncio.sleep(epoch - LEAD - self._started)  # after many starts in a row: peers refuse one far ahead
        if settings.admission == "open":
            _log.warning("open_admission", effect="anybody who makes a key can join: for demos and tests only")
        pledges = await asyncio.to_thread(setup.state.pledges)
        await asyncio.to_thread(self.belonging.restore, setup.state)
        ends.callback(self.belonging.detach)
        if setup.registry is not None:
            ends.push_async_callback(self._stop_registry, setup.registry)
            await setup.registry.start(self.belonging.registered)
        network = self.belonging.network
        self.handlers = default_handlers(
            self._heartbeat,
            RecordPorts(identity, network, verify, self.belonging.judge, self.belonging.accepted),
            account=lambda: self.engine.peers.myself.account,
            members=lambda: (self.engine.peers.myself, *self.engine.peers),
            heartbeat_interval=settings.heartbeat_interval,
            phase=self._rng.random(),
        )
        composer, peer_id = Composer(identity, network, epoch), settings.peer_id
        engine = Engine(
            composer, self._rng, peer_id=peer_id, bounds=setup.bounds, handlers=self.handlers, verify=verify
        )
        self._node = node = Node(engine, self._transport, self, self._dialer, verify_threads=settings.verify_threads)
        ends.push_async_callback(self._saving.finish, settings.stop_timeout / 8)
        ends.push_async_callback(self.server.stop)
        ends.push_async_callback(self._dialer.stop)
        ends.push_async_callback(node.stop, settings.stop_timeout / 2)
        if setup.state.is_kept:
            self.handlers.votes.pledges = pledges
            self._pledging = Pledging(setup.state, self.handlers.votes, node)
            ends.push_async_callback(self._pledging.close, settings.stop_timeout / 8)
        node.start()
        self.is_open = True
        self._bound = bound = await self._transport.start(node.receive)
        await self.server.start(bound.direct)
        # Only now: no peer is admitted yet, and an attempt that fails must not end the iterators that wait for
        # messages.
        ends.push_async_callback(self._end_handlers)
        setup.dispatcher.reopen()
        self.handlers.records.describe(
            Description(
                settings.peer_id,
                self.server.advertised(),
                bound.direct.port,
                bound.gossip and bound.gossip.port,
                delegation=None if setup.delegation is None else setup.delegation.encoded,
            )
        )
        node.submit(Start(await asyncio.to_thread(setup.state.reputation)))
        setup.peers.attach(engine, self._vouched, self.refuse_elsewhere)
        self.belonging.attach(BelongingPorts(engine, self.handlers.records, node.submit, self._belonging_changed))
        ends.push_async_callback(self._end_background)
        self._spawn(self._bootstrap.run(), "bootstrap")
        self._spawn(self._saving.run(), "state")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"zmesh {name} of {self._setup.settings.peer_id}")
        self._background.add(task)
        task.add_done_callback(lambda task: self._ended(task, name))

    def _ended(self, task: asyncio.Task[None], name: str) -> None:
        """Background tasks run until they are cancelled; one that ends otherwise is logged and counted."""
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background_ended", task=task.get_name(), exc_info=error)
            self.node.counters["background_ended"] += 1
            # The error's own text is in the log only: anyone may read health.
            self._broken.append(f"the task {name!r} of this node ended with {type(error).__name__}: restart the node")

    def refuse_elsewhere(self) -> None:
        """For calls that make the node take a step: only its own event loop may. Raises ``NotRunningError``."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not self.loop:
            name, hint = self._setup.settings.peer_id, "use asyncio.run_coroutine_threadsafe"
            raise NotRunningError(f"{name} runs on a different event loop than this call: {hint}")

    # ------------------------------------------------------------ stopping

    async def stop(self, waiting: Collection[asyncio.Task[Any]] = ()) -> None:
        """Let handlers finish what is queued, say goodbye and close: half of ``stop_timeout`` for each.

        The tasks in ``waiting`` wait for this to finish, so they are not waited for. Raises what the registry raises,
        at the end.
        """
        self._waiting = waiting
        try:
            await self._ends.aclose()
        finally:
            self.is_open = False  # also if a start failed half-way
            if self._node is not None:
                # A life that is over sits in reference cycles until Python collects it: not with all its messages.
                self.engine.seen.clear()
            self.links_changed()

    async def _end_background(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _end_handlers(self) -> None:
        """Done while the node can still send their answers; what comes in meanwhile is refused as busy."""
        try:
            await self._setup.dispatcher.close(self._setup.settings.stop_timeout / 2, self._waiting)
        finally:
            self.is_open = False
            self._setup.peers.detach()

    async def _stop_registry(self, registry: Registry) -> None:
        """Bounded, since a registry of the application's own may hang."""
        try:
            async with asyncio.timeout(self._setup.settings.stop_timeout / 2):
                await registry.stop()
        except TimeoutError:
            status = self._registry_status()
            _log.error("registry_not_stopped", registry=status and status.source)

    # ------------------------------------------------------------ sending

    async def publish(self, event: Broadcast) -> list[Action]:
        """Broadcast it at once, or a vote or proposal once it is on disk. Raises as ``Pledging.publish`` does."""
        if self._pledging is not None and event.kind in self.handlers.votes.kinds:
            return await self._pledging.publish(event)
        return self.node.ask(event)

    def reached_nobody(self, envelope: Envelope) -> bool:
        """Whether the queue of every link refused this message, which was just published and is kept to be offered."""
        entry = self.engine.seen.get(envelope.short)
        return entry is not None and not entry.holders

    async def send(
        self,
        recipient_id: str,
        message_type: MessageType,
        payload: Mapping[str, Any],
        timeout: float,  # noqa: ASYNC109  # part of the protocol: the recipient refuses what is older
    ) -> SendResult:
        """Send until acknowledged, for at most ``timeout`` seconds. Raises ``PayloadError``."""
        found = self.engine.peers.named(recipient_id)
        if len(found) == 1:
            outcome = await self._send(SendDirect(found[0].key, message_type, payload, timeout, self._token + 1))
            if (skew := outcome.skew_ms) is not None:
                if -PAST_MS < skew < AHEAD_MS:
                    _log.warning("refused_for_epoch", recipient=recipient_id, our_clock_ahead_ms=skew)
                else:
                    _log.warning("refused_for_clock", recipient=recipient_id, our_clock_ahead_ms=skew)
            return outcome.result
        result = SendResult.AMBIGUOUS if found else SendResult.UNREACHABLE
        self._results[result] += 1
        return result

    async def _send(self, event: SendDirect) -> Resolved:
        self._token = event.token
        future: asyncio.Future[Resolved] = asyncio.get_running_loop().create_future()
        self._sends[event.token] = future
        try:
            self.node.ask(event)
            return await future
        finally:
            self._sends.pop(event.token, None)

    # ------------------------------------------------------------ what the parts ask

    def deliver(self, action: Deliver) -> bool:
        """Queue a message for the application's handlers."""
        message = MeshMessage.of(action.envelope, action.sender, action.payload)
        is_accepted = self._setup.dispatcher.offer(message)
        if is_accepted:
            self._delivered[message.message_type] += 1
        return is_accepted

    def stepped(self) -> None:
        """Call handlers now and not a round of the event loop later: nothing else starts what was queued."""
        self._setup.dispatcher.turn()

    def resolved(self, outcome: Resolved) -> None:
        """A direct send ended, whether or not its caller still waits for it."""
        self._results[outcome.result] += 1
        future = self._sends.get(outcome.token)
        if future is not None and not future.done():
            future.set_result(outcome)

    def links_changed(self) -> None:
        """Wake everything that waits for links."""
        self._link_news.set()
        self._link_news = asyncio.Event()

    async def links(self, count: int) -> int:
        """Wait for ``count`` live links, or for the end of this life; returns how many there are."""
        while (live := len(self.engine.live)) < count and self.is_open:
            await self._link_news.wait()
        return live

    def _offer(self, encoded: bytes) -> Offer:
        """A seed, or a peer that was dialled, served its record."""
        return self.handlers.records.offer(encoded)

    def _post(self, encoded: bytes) -> Offer:
        """A record was posted over HTTP: if it is new, wake its handler, which introduces the newcomer."""
        offer = self.handlers.records.post(encoded)
        if offer.outcome is RecordOutcome.NEW:
            self.node.submit(HandlersChanged())
        return offer

    def _toward(self, place: Endpoint) -> None:
        """Seeds are reached this way: our record may now say where we are."""
        self._moved(self.server.toward(place))

    def _withdraw(self) -> None:
        """A seed refuses records with an address on one machine only: ours must not have one."""
        self._moved(self.server.withdraw_local())

    def _moved(self, is_elsewhere: bool) -> None:
        if is_elsewhere:
            self.handlers.records.move(self.server.advertised())
            self.node.submit(HandlersChanged())

    def _vouched(self, event: Event) -> None:
        """The operator adds a peer or takes it back."""
        self.node.submit(event)
        self.belonging.vouched(event)

    def _belonging_changed(self) -> None:
        self._dialer.join(self.belonging.network)
        self._bootstrap.hurry()

    def _records_known(self) -> tuple[int, int]:
        """How many other nodes' records are held, and how many other nodes belong."""
        held = self.handlers.records.records.keys() - {self._setup.identity.public}
        return len(held), len(self.engine.peers) + len(self.belonging.strangers())

    def _submit(self, event: LinkClosed) -> None:
        if self._node is not None:
            self._node.submit(event)

    # ------------------------------------------------------------ health and metrics

    def facts(self) -> dict[str, Any]:
        """What an operator wants to know about a node that has started, for the log."""
        status, gossip = self._registry_status(), self._bound.gossip
        return {
            "version": VERSION,
            "network": self.belonging.network.hex()[:NETWORK_DIGITS],
            "registry": None if status is None else status.source,
            "listen_port": self.server.port,
            "router_port": self._bound.direct.port,
            "gossip_port": None if gossip is None else gossip.port,
        }

    def health(self) -> dict[str, Any]:
        """The content of GET /health."""
        bootstrap = self._bootstrap.status() if self._setup.settings.bootstrap else None
        soon = [*self.belonging.warnings(), *self._saving.warnings()]
        troubles = Troubles(
            [*self._broken, *self._epoch_trouble(), *self.belonging.troubles()],
            soon if self._expects_somebody() else [NOBODY, *soon],
        )
        peer_id, known = self._setup.settings.peer_id, len(self._setup.peers)
        said = health(peer_id, self.engine, known, self._registry_status(), bootstrap, troubles)
        left = self.belonging.ends_in()
        if left is not None:
            said["delegation_ends_in_seconds"] = round(left)
        return said

    def _expects_somebody(self) -> bool:
        """Whether anything says who may connect, or where others are."""
        setup = self._setup
        told = setup.registry is not None or setup.settings.bootstrap or setup.settings.admission == "open"
        return bool(told or setup.peers)

    def _epoch_trouble(self) -> list[str]:
        """Why peers refuse what comes over links that stay up: its epoch is over, or that of a clock that was ahead."""
        if self.engine.is_outlived:
            return [TWIN]
        ahead = self._epoch - read_clocks().wall
        if ahead <= AHEAD:
            return []
        return [
            f"this machine's clock was set back by {ahead:.0f} s after this node was started: it and its peers refuse"
            " each other's messages until it is restarted"
        ]

    def _registry_status(self) -> RegistryStatus | None:
        """The registry's status if there is one, even if it is the application's own and raises: heartbeats report this
        node's health, and must go on.

        An error is counted and shown in health. It is not logged, or anyone who asks for health could fill the log.
        """
        registry = self._setup.registry
        if registry is None:
            return None
        try:
            return registry.status()
        except Exception as error:  # noqa: BLE001 - see above
            self.node.counters["registry_status_failed"] += 1
            return RegistryStatus(type(registry).__name__, 0, None, f"its status() raised {error!r}")

    def metrics(self) -> str:
        """The text of GET /metrics."""
        status = self._registry_status()
        gauges = Gauges(
            self.health()["status"] == "healthy",
            self._started,
            len(self._setup.peers),
            self._setup.dispatcher.qsize(),
            None if status is None else status.members,
            None if status is None else status.age,
            self.belonging.ends_in(),
        )
        layers: dict[str, Mapping[str, int]] = {
            "transport": self._transport.counters,
            "front_door": self.server.counters,
            "handler": self._setup.dispatcher.counters,
            "record": self.handlers.records.counters,
            "admission": self.belonging.counters,
            "registry": {} if status is None else status.counters,
            "node": self.node.counters,
        }
        return metrics(self.engine, gauges, self._delivered, self._results, layers)

    def _record(self) -> bytes:
        own = self.handlers.records.own
        return b"" if own is None else own.encoded

    def _heartbeat(self) -> Mapping[str, Any]:
        return {"status": self.health()["status"], "peers_count": len(self._setup.peers)}

    def _learnt(self) -> tuple[Scores, Mapping[str, bytes]]:
        """What outlives a restart, apart from pledges."""
        return self.engine.peers.reputation.snapshot(read_clocks().mono), self.belonging.learnt()
