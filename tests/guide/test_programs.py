"""The guide's programs, commands and containers, each in a process of its own; ``guide.py`` has all that is changed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.guide.guide import code, runs, variables
from tests.integration.command_line import running
from tests.integration.command_line import zmesh as zmesh_command
from tests.support import PATIENCE, Inbox, client, mesh, registry_file
from zmesh import MeshNetworkClient, MessageType
from zmesh.identity import create_key_file

ROOT = Path(__file__).parents[2]


def environment(snippet: str, **settings: str) -> dict[str, str]:
    """This process's variables without those of a mesh, then ``settings``; ``python3`` is the one that runs this."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MESH_", "BLOCKCHAIN_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{ours.get('PATH', '')}"
    local = {"MESH_LISTEN_HOST": "127.0.0.1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return {**ours, "PATH": path, **local, **variables(snippet, settings)}


async def shell(folder: Path, snippet: str, placeholders: Mapping[str, object] | None = None, **settings: str) -> str:
    """What a snippet prints in that folder."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-ec", code(snippet, **(placeholders or {}))),
        cwd=folder,
        env=environment(snippet, **settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(2 * PATIENCE):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@runs("Installation")
async def test_installation(tmp_path: Path) -> None:
    """All that zmesh depends on is there too, in the versions that it asks for."""
    said = await shell(tmp_path, "Installation", PIP_NO_INDEX="1", PIP_DRY_RUN="1")
    assert re.search(r"^Requirement already satisfied: zmesh-net ", said, re.MULTILINE)
    assert re.search(r"^Requirement already satisfied: pyzmq>=", said, re.MULTILINE)
    assert "Would install" not in said


@runs("Basic Usage")
async def test_basic_usage(tmp_path: Path) -> None:
    """A program of its own, as the guide has it; both ends hear of the other's round."""
    key = create_key_file(tmp_path / "key")
    author = MeshNetworkClient("validator_belizecity_01", private_key=str(tmp_path / "key"))
    registry = tmp_path / "registry.toml"
    other = client("validator_002", registry=registry)
    registry_file(registry, author, other)
    inbox = Inbox(other, MessageType.FL_ROUND_START)
    (tmp_path / "validator.py").write_text(code("Basic Usage"), encoding="utf-8")
    async with other:
        registry_file(registry, author, other)
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, str(tmp_path / "validator.py")),
            env=environment("Basic Usage", MESH_REGISTRY=str(registry), MESH_PRIVATE_KEY=str(tmp_path / "key")),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert program.stdout is not None
        try:
            message = await inbox.next()
            assert (message.sender_id, message.sender_key) == ("validator_belizecity_01", key.public.hex())
            assert message.payload["round_id"] == "round_001"
            assert (message.payload["deadline_seconds"], message.payload["reward_pool"]) == (3600, 50000)
            await other.announce_fl_round("round_002", "belize_corpus", 10, 3600)
            async with asyncio.timeout(PATIENCE):
                printed = [(await program.stdout.readline()).decode().strip() for _ in range(3)]
        finally:
            program.kill()
            await program.communicate()
    assert printed == ["✅ Mesh network started", "Found 1 validators", "New FL round: round_002"]


@runs("Environment Variables")
async def test_environment_variables(tmp_path: Path) -> None:
    said = await shell(tmp_path, "Environment Variables")
    expected = {
        "listen_port": 9090,
        "peer_id": "validator_belizecity_01",
        "blockchain_rpc": "ws://localhost:9944",
        "heartbeat_interval": 60,
        "peer_timeout": 300,
        "max_peers": 100,
        "gossip_fanout": 5,
    }
    settings = json.loads(said)
    assert {name: settings[name] for name in expected} == expected


@runs("Health Check Endpoint")
async def test_health_check_endpoint(tmp_path: Path) -> None:
    async with mesh("validator_001", "validator_002") as (reader, _):
        said = json.loads(await shell(tmp_path, "Health Check Endpoint", {"PORT": reader.listen_port}))
    names = ("status", "peer_id", "peers_count", "running")
    assert [said[name] for name in names] == ["healthy", "validator_001", 1, True]


@runs("Peers Not Discovered")
async def test_peers_not_discovered(tmp_path: Path) -> None:
    """The check starts a node of its own, which nobody knows: it still reads the registry."""
    registry = registry_file(tmp_path / "registry.toml", client("validator_001"), client("validator_002"))
    said = await shell(tmp_path, "Peers Not Discovered", MESH_REGISTRY=str(registry))
    assert "Found 2 peers" in said.splitlines()


@runs("Port Already in Use")
async def test_port_already_in_use(tmp_path: Path) -> None:
    said = await shell(tmp_path, "Port Already in Use")
    assert json.loads(said.splitlines()[-1])["listen_port"] == 9091


@runs("Docker Compose")
@runs("Kubernetes")
@pytest.mark.parametrize(
    "name, setting, peer_id, status",
    [
        ("Docker Compose", r"- (\w+)=(.+)", "validator_001", "degraded"),  # and says that there is no chain
        ("Kubernetes", r'- name: (\w+)\n +value: "(.+)"', "nawal-validator-6c8d", "healthy"),
    ],
)
async def test_a_container_is_a_process_with_its_variables(name: str, setting: str, peer_id: str, status: str) -> None:
    """It takes no engine to see that they are all that a node asks for."""
    settings = dict(re.findall(setting, code(name)))
    assert settings["MESH_PEER_ID"] == peer_id
    async with running(**settings) as (_, port):
        exit_status, out, _ = await zmesh_command("health", f"127.0.0.1:{port}")
    said = json.loads(out)
    assert (exit_status, said["status"], said["peer_id"], said["running"]) == (0, status, peer_id, True)
