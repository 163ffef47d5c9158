"""The README's code, run as it stands: its programs, its commands, its file of validators, and its table of settings.

``SUBSTITUTIONS`` has all that is changed before it runs. A block of code that no test runs fails the first test.
"""

from __future__ import annotations

import asyncio
import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.chain.installing import installed_or_skipped
from tests.support import PATIENCE, Inbox, client, registry_file
from zmesh import MessageType, Settings
from zmesh.config import variable_of
from zmesh.identity import create_key_file
from zmesh.registry.roster_file import parse_roster

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)

SUBSTITUTIONS = {
    'public_key = "..."': 'public_key = "{key}"',  # a placeholder for 64 hex digits
    "localhost:9090": "localhost:{port}",  # nodes of tests take any free port
}


def block(language: str, begins: str) -> str:
    """The one block of that language whose text begins so."""
    (found,) = [text for name, text in BLOCKS if name == language and text.startswith(begins)]
    return str(found)


MAKE = block("bash", "make demo")
PAIR = block("python", "import asyncio\n\nfrom zmesh import MeshNetworkClient, MessageType, PeerInfo")
PROGRAM = block("python", "import asyncio\n\nfrom zmesh import MeshNetworkClient, MessageType\n")
VALIDATORS = block("toml", "[[validator]]")
RUN = block("bash", "zmesh key new mesh.key\nMESH_PEER_ID")
CHAIN = block("bash", "zmesh chain")
ALICE = block("bash", "zmesh key new mesh.key\nzmesh key delegate")
BOB = block("bash", "MESH_PEER_ID=bob")
LOOK = block("bash", "zmesh health")
TESTING = block("python", "import asyncio\n\nfrom zmesh import MessageType\nfrom zmesh.testing import mesh\n\n\nclass")
VOTES = block(
    "python", "import asyncio\n\nfrom zmesh import MessageType\nfrom zmesh.testing import mesh\n\n\nasync def"
)
SIMULATION = block("pycon", ">>> from zmesh")


def substituted(text: str, **values: object) -> str:
    """The text with those of ``SUBSTITUTIONS`` made whose word is among ``values``."""
    for original, replacement in SUBSTITUTIONS.items():
        if any(f"{{{word}}}" in replacement for word in values):
            assert original in text
            text = text.replace(original, replacement.format(**values))
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the reader works; ``zmesh`` is on the path, and ``curl`` too, even where it is not installed."""
    tools = tmp_path / "bin"
    tools.mkdir()
    fetch = "import sys, urllib.request as http; print(http.urlopen(sys.argv[1]).read().decode())"
    scripts = {"zmesh": f'exec {sys.executable} -m zmesh "$@"'}
    if shutil.which("curl") is None:
        scripts["curl"] = f"exec {sys.executable} -c '{fetch}' \"$1\""
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    """This process's variables without those of a mesh, and a mesh on loopback and any free port."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MESH_", "BLOCKCHAIN_"))}
    path = f"{folder / 'bin'}{os.pathsep}{ours.get('PATH', '')}"
    local = {"MESH_LISTEN_HOST": "127.0.0.1", "MESH_LISTEN_PORT": "0"}
    return {**ours, **local, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


async def start(folder: Path, *command: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment(folder),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def shell(folder: Path, line: str) -> str:
    """What a command prints, once it has ended well."""
    async with asyncio.timeout(3 * PATIENCE):
        process = await start(folder, "bash", "-ec", line)
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


def test_no_block_is_left_out() -> None:
    commands, programs = {MAKE, RUN, CHAIN, ALICE, BOB, LOOK}, {PAIR, PROGRAM, VOTES, TESTING, SIMULATION}
    assert {text for _, text in BLOCKS} == {*commands, *programs, VALIDATORS}


def test_every_link_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_two_commands_are_there() -> None:
    """Running them is what ``make test`` and the tests of the demo do."""
    goals = [line.split("#")[0].split() for line in MAKE.splitlines()]
    assert goals == [["make", "demo"], ["make", "test"]]
    for goal in goals:
        subprocess.run([*goal, "--dry-run"], cwd=ROOT, check=True, capture_output=True)


async def test_the_smallest_mesh_runs_as_it_stands(folder: Path) -> None:
    (folder / "pair.py").write_text(PAIR, encoding="utf-8")
    printed = await shell(folder, f"{sys.executable} pair.py")
    assert printed.splitlines() == ["alice {'text': 'hello, everybody'}", "delivered"]


async def test_votes_and_rounds_are_what_the_text_says(folder: Path) -> None:
    (folder / "votes.py").write_text(VOTES, encoding="utf-8")
    printed = await shell(folder, f"{sys.executable} votes.py")
    told = re.search(r"^It prints `(.+)` and `(.+)`\.", TEXT, re.MULTILINE)
    assert told is not None
    assert printed.splitlines() == list(told.groups())


async def test_the_test_of_a_service_runs_as_it_stands_and_can_fail(folder: Path) -> None:
    (folder / "tested.py").write_text(TESTING, encoding="utf-8")
    assert await shell(folder, f"{sys.executable} tested.py") == ""
    wrong = TESTING.replace('"validator_003"}', '"validator_004"}')
    (folder / "wrong.py").write_text(wrong, encoding="utf-8")
    process = await start(folder, sys.executable, "wrong.py")
    async with asyncio.timeout(3 * PATIENCE):
        _, err = await process.communicate()
    assert (process.returncode, err.decode().splitlines()[-1]) == (1, "AssertionError")


async def test_the_program_answers_a_round_with_a_delta(folder: Path) -> None:
    create_key_file(folder / "mesh.key")
    author = client("validator_belizecity_01", private_key=str(folder / "mesh.key"))
    registry = folder / "validators.toml"
    other = client("validator_002", registry=registry_file(registry, author, client("validator_002")))
    registry_file(registry, author, other)
    inbox = Inbox(other, MessageType.MODEL_DELTA_TRANSFER)
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    async with other:
        registry_file(registry, author, other)  # with the port that it found
        program = await start(folder, sys.executable, "program.py")
        assert program.stdout is not None
        try:
            await other.announce_fl_round("round_001", "belize_corpus", 10, 3600)
            delta = await inbox.next()
            async with asyncio.timeout(PATIENCE):
                printed = (await program.stdout.readline()).decode()
        finally:
            program.kill()
            await program.communicate()
    assert delta.sender_id == "validator_belizecity_01"
    assert delta.payload == {"round_id": "round_001", "model_cid": "QmX...", "quality_score": 95.5}
    assert printed == "round_001 delta delivered\n"


async def test_the_commands_make_a_key_check_a_registry_and_run_a_node(folder: Path) -> None:
    new_key, run, curl = RUN.splitlines()
    key = (await shell(folder, new_key)).strip()
    assert await shell(folder, "zmesh key show mesh.key") == f"{key}\n"
    entry = substituted(VALIDATORS, key=key)
    (folder / "validators.toml").write_text(entry, encoding="utf-8")
    (member,) = parse_roster(entry.encode(), "README").members
    assert (member.peer_id, member.key.hex(), member.stake) == ("validator_belizecity_01", key, 5_000_000_000_000)
    said = await shell(folder, "zmesh registry check validators.toml")
    assert said == "validators.toml: 1 member, 1 validator, stake 5000000000000, 0 without an address\n"
    node = await start(folder, "bash", "-ec", f"exec env {run}")
    assert node.stderr is not None
    try:
        async with asyncio.timeout(3 * PATIENCE):
            while "listen_port" not in (entry := json.loads(await node.stderr.readline() or "{}")):
                assert node.returncode is None
        port = entry["listen_port"]
        health = json.loads(await shell(folder, substituted(curl, port=port)))
        assert (health["status"], health["peer_id"], health["running"]) == ("healthy", member.peer_id, True)
        again = json.loads(await shell(folder, f"zmesh health --strict 127.0.0.1:{port}"))
        assert again.keys() == health.keys()
        node.terminate()
        async with asyncio.timeout(PATIENCE):
            assert await node.wait() == 0
    finally:
        if node.returncode is None:
            node.kill()
        await node.communicate()


async def test_from_nothing_to_a_connected_validator_on_a_chain(folder: Path) -> None:
    """As it stands, but for ports: the chain, Alice, Bob, and what his node says then."""
    await asyncio.to_thread(installed_or_skipped)
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(running(folder, f"exec {CHAIN.strip()} --port 0"))
        url = (await heard(chain.stdout, "is a chain whose validators are //Alice, //Bob")).split()[0]
        *prepare, _ = ALICE.splitlines(keepends=True)
        ports: dict[str, str] = {}
        for name, lines in (("alice", ALICE), ("bob", "".join([*prepare, BOB]))):
            (folder / name).mkdir()
            script = re.sub(r"MESH_LISTEN_PORT=\d+ ", "", lines).replace("ws://localhost:9944", url)
            script = script.replace("localhost:9090", f"localhost:{ports.get('alice')}")
            script = script.replace("MESH_PEER_ID=", "exec env MESH_PEER_ID=")
            secret = f"MESH_ACCOUNT_SECRET=//{name.capitalize()}"
            node = await stack.enter_async_context(running(folder, f"cd {name}; export {secret}\n{script}"))
            entry = await heard(node.stderr, "listen_port")
            ports[name] = json.loads(entry)["listen_port"]
            assert node.stdout is not None
            printed = [(await node.stdout.readline()).decode() for _ in range(10)]
            assert "mesh.delegation: the key " in "".join(printed)
            assert "holds:    yes" in "".join(printed)
        async with asyncio.timeout(PATIENCE):
            while True:
                said = json.loads(await shell(folder, f"zmesh health localhost:{ports['bob']}"))
                if said["links_live"] == 1:
                    break
        assert (said["status"], said["peer_id"], said["registry"]["members"]) == ("healthy", "bob", 2)
        assert said["registry"]["block"] >= 1
        strict = LOOK.replace("localhost:9091", f"localhost:{ports['bob']}")
        assert json.loads(await shell(folder, strict))["status"] == "healthy"


@asynccontextmanager
async def running(folder: Path, script: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A script that runs until the block is left."""
    process = await start(folder, "bash", "-ec", script)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def heard(stream: asyncio.StreamReader | None, words: str) -> str:
    """The first line with these words."""
    assert stream is not None
    async with asyncio.timeout(3 * PATIENCE):
        while words not in (line := (await stream.readline()).decode()):
            assert line, f"it ended without saying {words!r}"
    return line


def test_the_simulation_says_what_it_prints() -> None:
    failed, tried = doctest.testfile(str(README), module_relative=False)
    assert (failed, tried > 0) == (0, True)


def test_the_table_of_variables_is_true() -> None:
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \| ([^|]*?) *\| ", TEXT, re.MULTILINE)
    told = {variable: default for names, default in rows for variable in re.findall(r"`(\w+)`", names)}
    fields = {variable_of(name): field for name, field in Settings.model_fields.items()}
    assert set(told) <= set(fields)
    real = {variable: fields[variable].default for variable, default in told.items() if re.match(r"[\w.:/]+$", default)}
    assert len(real) > 5
    assert {variable: str(default) for variable, default in real.items()} == {name: told[name] for name in real}
    unsaid = [fields[variable] for variable, default in told.items() if not default]
    assert all(field.is_required() or field.default in (None, "") for field in unsaid)
