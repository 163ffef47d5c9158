"""A service that forks while its node runs, as data loaders do: what its children inherit is in no node's way."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.integration.command_line import environment
from tests.support import PATIENCE, card, client, until
from zmesh import MeshNetworkClient, PeerInfo
from zmesh.identity import create_key_file

SERVICE = """
import asyncio, os, signal, sys
from tests.support import client
from zmesh import PeerInfo

async def main(folder, address, public_key):
    again = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, again.set)
    settings = {"private_key": f"{folder}/b.key", "state_dir": f"{folder}/b"}
    async with client("b", **settings) as node:
        print(port := node.listen_port, flush=True)
        node.peers["a"] = PeerInfo("a", multiaddr=address, public_key=public_key)
        await node.wait_for_links(1)
        if os.fork() == 0:
            os.write(1, b"forked\\n")
            os.read(0, 1)
            os._exit(0)
        await again.wait()
    async with client("b", **settings, listen_port=port) as node:
        print("again", flush=True)
        node.peers["a"] = PeerInfo("a", multiaddr=address, public_key=public_key)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""
BYSTANDERS = """
import os, socket, stat, tempfile
from zmesh import forked
from zmesh.core.types import Endpoint

socket.setdefaulttimeout(60)
node = socket.create_server(("127.0.0.1", 0))
port = node.getsockname()[1]
forked.listeners[node] = (Endpoint("127.0.0.1", port),)
callers = [socket.create_connection(("127.0.0.1", port)), node.accept()[0]]
lock = os.open(tempfile.gettempdir(), os.O_RDONLY)
forked.locks.add(lock)
server = socket.create_server(("127.0.0.2", port))  # the application's, on the same port of another address
pair = socket.socketpair()
for each in pair:
    each.setblocking(True)
others = [callers[0], server, *pair, socket.create_connection(("127.0.0.2", port)), server.accept()[0]]

def is_gone(descriptor):
    return stat.S_ISCHR(os.fstat(descriptor).st_mode)

def outcome(child):
    if (pid := os.fork()) == 0:
        try:
            child()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def check():
    assert [is_gone(each) for each in (node.fileno(), callers[1].fileno(), lock)] == [True] * 3
    assert [is_gone(each.fileno()) for each in others] == [False] * 6
    assert [os.get_blocking(each.fileno()) for each in pair] == [True, True]
    assert socket.getdefaulttimeout() == 60
    assert not (forked.listeners or forked.connections or forked.locks)
    os.close(lock)
    mine = tempfile.TemporaryFile()
    assert mine.fileno() == lock
    again = socket.create_server(("127.0.0.1", 0))
    assert outcome(lambda: check_again(mine, again)) == 0

def check_again(*mine):
    assert not any(is_gone(each.fileno()) for each in mine)

assert outcome(check) == 0
assert [is_gone(each.fileno()) for each in (node, *callers, *others)] == [False] * 9
assert [os.get_blocking(each.fileno()) for each in pair] == [True, True]
print("untouched")
"""
SOON = 5.0
"""Seconds: a quarter of what passes until a node takes the silence of a peer for its end."""


@asynccontextmanager
async def service(folder: Path, peer: MeshNetworkClient) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """The service, linked with ``peer``, and its port. Its child lives until the end of this."""
    key = create_key_file(folder / "b.key").public.hex()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore::DeprecationWarning", "-c", SERVICE),
        *(str(folder), card(peer).multiaddr, peer.public_key),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await said(process))
        peer.peers["b"] = PeerInfo("b", multiaddr=f"/ip4/127.0.0.1/tcp/{port}", public_key=key)
        assert await said(process) == b"forked\n"
        await until(lambda: peer.peers["b"].is_linked, peer)
        yield process, port
    finally:
        if process.returncode is None:
            process.kill()
        process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            await process.stdout.read()  # until the child has ended as well
            await process.wait()


async def said(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        return await process.stdout.readline()


async def test_the_death_of_a_service_is_noticed_and_its_node_replaced_while_its_children_live_on(
    tmp_path: Path,
) -> None:
    async with client("a") as peer, service(tmp_path, peer) as (process, port):
        os.kill(process.pid, signal.SIGKILL)
        await until(lambda: not peer.peers["b"].is_linked, peer, seconds=SOON)
        with suppress(ChildProcessError):  # asyncio was first; its own wait would also be for the child's end
            await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        async with client("b", private_key=tmp_path / "b.key", state_dir=tmp_path / "b", listen_port=port) as successor:
            successor.peers["a"] = card(peer)
            await until(lambda: peer.peers["b"].is_linked, peer)


async def test_a_node_of_a_service_can_be_started_again_while_its_children_live_on(tmp_path: Path) -> None:
    async with client("a") as peer, service(tmp_path, peer) as (process, _):
        process.send_signal(signal.SIGUSR1)
        assert await said(process) == b"again\n"
        await until(lambda: peer.peers["b"].is_linked, peer)


async def test_what_else_the_application_has_open_stays_as_it_is_in_child_parent_and_grandchild() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore::ResourceWarning", "-c", BYSTANDERS),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(),
    )
    async with asyncio.timeout(PATIENCE):
        told, _ = await process.communicate()
    assert told == b"untouched\n"
