"""How connections on real sockets come about, end and come back, and what a transport leaves behind."""

from __future__ import annotations

import asyncio
import operator
import os
import resource
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import pytest
import zmq

from tests.contract.peers import PATIENCE
from tests.integration.zeromq_by_hand import ByHand
from tests.integration.zeromq_support import Node, Nodes
from zmesh.core.errors import ConfigError
from zmesh.core.events import FrameReceived, LinkClosed, LinkOpened
from zmesh.core.types import Endpoint
from zmesh.identity import Identity
from zmesh.transport import MAX_LINKS, Routes
from zmesh.transports.packing import pack
from zmesh.transports.readiness import ZmqSocket, has_input
from zmesh.transports.sockets import SocketBounds, Sockets, raise_file_limit
from zmesh.transports.zeromq import ZeroMqTransport

QUICK = SocketBounds(dial_timeout=0.5, handshake=0.3, feed_first_retry=0.05)


async def test_the_kernel_watches_every_connection_for_a_vanished_host(nodes: Nodes) -> None:
    """And ZMTP's own heartbeats stay off: they end the process when a busy peer is killed."""
    a, b = await nodes.linked()
    watched = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT]
    dial = b.zeromq._dials[a.key]
    assert dial._dealer is not None
    assert dial._feed is not None
    assert dial._feed._client is not None
    for accepted in (a.zeromq._inbound.connections, a.zeromq._publisher.connections):
        (connection,) = accepted._open.values()
        handle = connection.handle
        assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert [handle.getsockopt(socket.IPPROTO_TCP, option) for option in watched] == [5, 5, 3, 15_000]
    for made in (dial._dealer.socket, dial._feed._client.socket):
        options = (zmq.TCP_KEEPALIVE, zmq.TCP_KEEPALIVE_IDLE, zmq.TCP_KEEPALIVE_INTVL, zmq.TCP_MAXRT)
        assert [made.get(option) for option in options] == [1, 5, 5, 15_000]
    for each in (a.zeromq._inbound.socket, a.zeromq._publisher.socket, dial._dealer.socket, dial._feed._client.socket):
        assert each.get(zmq.HEARTBEAT_IVL) == 0


async def test_a_busy_peer_may_be_reset_at_any_moment(nodes: Nodes) -> None:
    """Its connection dies while more of its messages wait than our queue takes."""
    a, b = await nodes.linked()
    for _ in range(5):
        identity = await nodes.attacker(a)
        client = await ByHand.connect(a.routes.direct, identity, a.identity.curve_public)
        for _ in range(2000):
            client.send(pack((b"h", b"busy")))
        client.reset()
        end = LinkClosed(identity.public, "closed the connection", inbound=True)
        await a.until(partial(operator.contains, a.events, end))
    assert a.send(b, b"still here")
    assert await b.until_received(1) == [(b"still here",)]


async def test_a_refused_connection_is_told_at_once(nodes: Nodes) -> None:
    a = await nodes.node()
    nobody = Identity.generate()
    a.transport.admit(frozenset({nobody.public}))
    loop = asyncio.get_running_loop()
    began = loop.time()
    a.transport.dial(nobody.public, Routes(Endpoint("127.0.0.1", 1)))
    assert await a.until_told(1) == [LinkClosed(nobody.public, "could not connect: refused or unreachable")]
    assert loop.time() - began < 0.5


async def answering(answer: bytes | None) -> tuple[asyncio.Server, Endpoint]:
    """A TCP server that says ``answer`` and closes, or says nothing (None)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])


@pytest.mark.parametrize(
    "answer, why",
    [
        (None, "ended the handshake: not the expected key, or not a mesh node"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "closed the connection"),
    ],
    ids=["silence", "http"],
)
async def test_a_dial_to_something_else_is_answered(nodes: Nodes, answer: bytes | None, why: str) -> None:
    a = await nodes.node(QUICK)
    nobody = Identity.generate()
    a.transport.admit(frozenset({nobody.public}))
    server, endpoint = await answering(answer)
    a.transport.dial(nobody.public, Routes(endpoint))
    assert await a.until_told(1) == [LinkClosed(nobody.public, why)]
    server.close()


async def test_where_nobody_says_a_word_the_spare_route_is_tried(nodes: Nodes) -> None:
    a, b = await nodes.node(SocketBounds(dial_timeout=0.3)), await nodes.node()
    a.admit(b)
    b.admit(a)
    server, endpoint = await answering(None)
    a.dial(b, Routes(endpoint, spare=b.routes.direct))
    assert await a.until_told(1) == [LinkOpened(b.key)]
    assert a.counted["dialled_spare"] == 1
    server.close()


async def test_a_lost_link_is_told_and_not_made_anew_by_the_spare_route(nodes: Nodes) -> None:
    a, b = await nodes.node(), await nodes.node()
    a.admit(b)
    b.admit(a)
    a.dial(b, Routes(b.routes.direct, spare=b.routes.direct))
    assert await a.until_told(1) == [LinkOpened(b.key)]
    assert a.send(b, b"hello")
    await b.until_received(1)
    b.admit()
    assert await a.until_told(2) == [LinkOpened(b.key), LinkClosed(b.key, "connection lost")]
    assert a.counted["dialled_spare"] == 0


async def test_a_dialled_peer_that_sends_two_frames_as_a_message_is_cut(nodes: Nodes) -> None:
    a, far = await nodes.node(), Identity.generate()
    a.transport.admit(frozenset({far.public}))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = ByHand(reader, writer)
        await end.greet_client(far)
        end.send(b"one", more=True)
        end.send(b"two")
        await end.until_cut()
        await end.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    a.transport.dial(far.public, Routes(Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])))
    assert await a.until_told(2) == [
        LinkOpened(far.public),
        LinkClosed(far.public, "sent a message of too many frames"),
    ]
    assert (a.frames(), a.counted["too_many_frames"]) == ([], 1)
    server.close()


async def test_a_dial_into_the_void_has_a_deadline(nodes: Nodes) -> None:
    """Something accepts and says nothing, for longer than we are willing to wait."""
    a = await nodes.node(SocketBounds(dial_timeout=0.2))
    nobody = Identity.generate()
    a.transport.admit(frozenset({nobody.public}))
    server, endpoint = await answering(None)
    a.transport.dial(nobody.public, Routes(endpoint))
    assert await a.until_told(1) == [LinkClosed(nobody.public, "no answer within 0.2 s")]
    server.close()


@pytest.mark.parametrize(
    "host, port", [("localhost", 9), ("", 9), ("256.1.1.1", 9), ("127.0.0.1", 0), ("::1", -1), ("127.0.0.1", 65536)]
)
async def test_a_dial_to_an_impossible_place_is_answered_and_no_name_looked_up(
    nodes: Nodes, host: str, port: int
) -> None:
    a = await nodes.node(QUICK)
    nobody = Identity.generate()
    a.transport.admit(frozenset({nobody.public}))
    good, bad = Endpoint("127.0.0.1", 1), Endpoint(host, port)
    for routes in (Routes(bad), Routes(good, bad)):
        a.transport.dial(nobody.public, routes)
    told = LinkClosed(nobody.public, f"{bad} is not an IP address and port")
    assert await a.until_told(2) == [told, told]


async def test_ipv6_works(nodes: Nodes) -> None:
    a, b = await nodes.node(host="::1"), await nodes.node(host="::1")
    a.admit(b)
    b.admit(a)
    await nodes.link(a, b)
    assert b.send(a, b"over six", gossip=True)
    assert await a.until_received(1) == [(b"over six",)]


@pytest.mark.parametrize("host", ["localhost", "", "127.0.0", "example.org"])
def test_a_host_that_is_no_address_is_a_configuration_error(host: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on .*: it must be an IP address such as 127.0.0.1"):
        ZeroMqTransport(Identity.generate(), host=host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_node_may_listen_everywhere(nodes: Nodes, host: str) -> None:
    a, b = await nodes.node(host=host), await nodes.node()
    a.admit(b)
    b.admit(a)
    local = "::1" if ":" in host else "127.0.0.1"
    b.dial(a, Routes(Endpoint(local, a.routes.direct.port), Endpoint(local, a.gossip.port)))
    assert await b.until_told(1) == [LinkOpened(a.key)]


async def test_a_lost_subscription_comes_back_under_a_fresh_topic(nodes: Nodes) -> None:
    a, b = await nodes.node(), await nodes.node(QUICK)
    a.admit(b)
    b.admit(a)
    await nodes.link(b, a)
    await a.counted.until_counted("gossip_subscribed")
    lane = a.zeromq._publisher._lanes[b.key]
    a.zeromq._publisher.bar(b.key, "for_the_test")
    await a.counted.until_counted("gossip_subscribed", 2)
    assert a.zeromq._publisher._lanes[b.key].topic != lane.topic
    assert b.counted["feed_lost"] == 1
    assert b.opened(a, inbound=False)
    assert a.zeromq._publisher.send(b.key, (b"by the new lane",))
    assert await b.until_received(1) == [(b"by the new lane",)]


async def test_a_neighbour_we_dialled_may_say_as_much_as_it_likes_in_whole_messages(nodes: Nodes) -> None:
    a, b = await nodes.node(), await nodes.node(SocketBounds(max_frame=1024))
    a.admit(b)
    b.admit(a)
    await nodes.link(b, a)
    for number in range(1, 10):
        for _ in range(8):
            assert a.send(b, bytes(900))
        await b.until_received(8 * number)
        b.zeromq._dials[a.key].look()
    assert b.counted["dialled_endless"] == 0


@pytest.mark.parametrize("lost", ["direct", "gossip"])
async def test_what_had_arrived_before_a_connection_ended_is_told_before_its_end(nodes: Nodes, lost: str) -> None:
    """Though the reader had not got to it: the end of a connection comes over another socket."""
    a, b = await nodes.linked()
    dial = b.zeromq._dials[a.key]
    assert dial._dealer is not None
    assert dial._feed is not None
    assert dial._feed._client is not None
    busy = dial._dealer, dial._feed._client
    for client in busy:
        client.drain.close()
    assert a.send(b, b"direct")
    assert a.send(b, b"gossip", gossip=True)
    for client in busy:
        await arrived(client.socket)
    b.events.clear()
    if lost == "direct":
        a.zeromq._inbound.bar(b.key, "for_the_test")
        assert await b.until_told(1) == [LinkClosed(a.key, "connection lost")]
        assert b.events[:-1] == [FrameReceived(a.key, (b"direct",)), FrameReceived(a.key, (b"gossip",))]
    else:
        a.zeromq._publisher.bar(b.key, "for_the_test")
        await b.counted.until_counted("feed_lost")
        assert await b.until_received(1) == [(b"gossip",)]
        assert b.changes() == []


async def arrived(waiting: ZmqSocket) -> None:
    """Wait until a message lies in a socket, and leave it there."""
    loop, news, descriptor = asyncio.get_running_loop(), asyncio.Event(), waiting.get(zmq.FD)
    assert isinstance(descriptor, int)
    loop.add_reader(descriptor, news.set)
    try:
        async with asyncio.timeout(PATIENCE):
            while not has_input(waiting):
                news.clear()
                await news.wait()
    finally:
        loop.remove_reader(descriptor)


async def test_gossip_rides_on_the_direct_lane_where_there_is_no_publisher(nodes: Nodes) -> None:
    a, b = await nodes.node(), await nodes.node()
    a.admit(b)
    b.admit(a)
    b.dial(a, Routes(a.routes.direct))
    await b.until(lambda: b.opened(a, inbound=False))
    assert b.send(a, b"hello")
    await a.until_received(1)
    assert a.send(b, b"gossip", gossip=True)
    assert await b.until_received(1) == [(b"gossip",)]
    assert a.counted["gossip_subscribed"] == 0


# ------------------------------------------------------------ another process


SERVE = """
import asyncio, sys
from zmesh.core.events import FrameReceived
from zmesh.identity import Identity
from zmesh.transports.zeromq import ZeroMqTransport

async def main(seed, friend, direct, gossip):
    def echo(batch):
        for event in batch:
            if isinstance(event, FrameReceived):
                transport.send(event.link, (b"echo", *event.frames), gossip=False)
    transport = ZeroMqTransport(Identity(seed), router_port=direct, gossip_port=gossip)
    routes = await transport.start(echo)
    transport.admit(frozenset({friend}))
    print(routes.direct.port, routes.gossip.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main(bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
"""


STARTING = 60.0
"""Seconds for a new interpreter and its imports, however many others begin at the same time."""


async def serve(
    seed: bytes, friend: Node, ports: tuple[int, int] = (0, 0)
) -> tuple[asyncio.subprocess.Process, Routes]:
    """A peer in a process of its own, and where it listens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVE,
        seed.hex(),
        friend.key.hex(),
        *map(str, ports),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    async with asyncio.timeout(STARTING):
        direct, gossip = map(int, (await process.stdout.readline()).split())
    return process, Routes(Endpoint("127.0.0.1", direct), Endpoint("127.0.0.1", gossip))


async def test_a_killed_peer_is_noticed_and_a_restarted_one_is_reached(nodes: Nodes) -> None:
    a = await nodes.node()
    identity = Identity(bytes(31) + b"\x07")
    far = Node(identity, SocketBounds())
    a.admit(far)
    process, routes = await serve(bytes(31) + b"\x07", a)
    a.dial(far, routes)
    await a.until(lambda: a.opened(far, inbound=False))
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await a.until(lambda: not a.opened(far, inbound=False))
    assert a.events[-1] == LinkClosed(far.key, "connection lost")
    assert not a.send(far, b"anybody?")
    assert routes.gossip is not None
    process, routes = await serve(bytes(31) + b"\x07", a, (routes.direct.port, routes.gossip.port))
    a.dial(far, routes)
    await a.until(lambda: a.opened(far, inbound=False))
    assert a.send(far, b"again")
    assert await a.until_received(1) == [(b"echo", b"again")]
    process.kill()
    await process.wait()


# ------------------------------------------------------------ how many


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 8 * MAX_LINKS, reason="too few file handles here")
def test_there_are_sockets_for_as_many_neighbours_as_a_node_may_have() -> None:
    raise_file_limit()
    sockets = Sockets(Identity.generate(), SocketBounds())
    made: list[ZmqSocket] = [sockets.authenticator()]
    try:
        for _ in range(MAX_LINKS):
            for client in (sockets.dealer, sockets.subscriber):
                made.append(client("127.0.0.1"))
                made.append(sockets.monitored(made[-1]))
    finally:
        for socket_ in made:
            socket_.close(0)
        sockets.context.term()

    assert len(made) == 1 + 4 * MAX_LINKS


# ------------------------------------------------------------ what is left behind


def descriptors() -> int:
    """Open file handles of this process."""
    return len(os.listdir("/proc/self/fd"))


async def test_a_stopped_transport_leaves_no_file_handle() -> None:
    async def once() -> None:
        nodes = Nodes()
        try:
            a, b = await nodes.linked()
            await nodes.link(a, b)
            c = await nodes.node()
            a.admit(b, c)
            a.dial(c)
            await a.until(lambda: a.events[-1:] == [LinkClosed(c.key, "refused our key")])
            a.hangup(b)
            await b.until(lambda: not b.opened(a, inbound=False))
        finally:
            await nodes.stop()

    await once()
    before = descriptors()
    await once()
    assert descriptors() == before


async def test_a_failed_start_leaves_no_file_handle(nodes: Nodes) -> None:
    a = await nodes.node()
    before = descriptors()
    for port, setting in (("router_port", "MESH_ROUTER_PORT"), ("gossip_port", "MESH_GOSSIP_PORT")):
        second = ZeroMqTransport(Identity.generate(), **{port: a.routes.direct.port})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"{a.routes.direct}: Address already in use; set {setting} to a free"):
            await second.start(lambda batch: None)
        await second.stop(1.0)
    # Fewer, if the sockets of the first one's self-test were still being closed.
    assert descriptors() <= before
