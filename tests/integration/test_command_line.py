"""The command line as an operator meets it: real processes, one answer, one sentence, an exit status."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from tests.integration.command_line import ROOT, SECONDS, environment, running, start, zmesh
from zmesh.cli import app
from zmesh.core import build
from zmesh.identity import Identity, load_key
from zmesh.status import NOBODY

SECRET = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"


async def test_a_key_is_made_shown_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    status, public, err = await zmesh("key", "new", path)
    assert (status, err) == (0, "")
    assert public == load_key(path).public.hex() + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await zmesh("key", "show", path) == (0, public, "")
    assert await zmesh("key", "show", MESH_PRIVATE_KEY=str(path)) == (0, public, "")
    again = await zmesh("key", "new", path)
    assert again == (2, "", f"zmesh: {path} already exists: name a new file, or move this one away first\n")
    path.chmod(0o644)
    exposed = await zmesh("key", "show", path)
    assert exposed == (
        2,
        "",
        f"zmesh: key file {path} is accessible to others (mode 0644): run `chmod 600 {path}`\n",
    )


INTERRUPTING = """
import os, signal, sys
if os.environ["INTERRUPT_BY"] == "SIGTERM":
    os.getpid = lambda: 1  # as in a container; for any other process, the kernel does what is right
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            signal.raise_signal(signal.Signals[os.environ["INTERRUPT_BY"]])
# Whoever runs the tests may ignore it, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    "way", [["-m", "zmesh"], ["-c", "from zmesh.__main__ import main; main()"]], ids=["-m", "script"]
)
@pytest.mark.parametrize("module", ["zmesh.cli", "typer", "zmesh.core.errors", "zmesh.config"])
@pytest.mark.parametrize("number, code", [("SIGINT", 130), ("SIGTERM", 143)], ids=["ctrl-c", "sigterm-in-a-container"])
async def test_a_signal_while_it_still_imports_ends_it_without_a_traceback(
    way: list[str], module: str, number: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)
    settings = environment(INTERRUPT_AT=module, INTERRUPT_BY=number)
    async with asyncio.timeout(SECONDS):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *way, "run"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**settings, "PYTHONPATH": f"{tmp_path}{os.pathsep}{settings['PYTHONPATH']}"},
        )
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (code, b"", b"")


async def test_a_registry_is_checked_as_a_node_would(tmp_path: Path) -> None:
    path = tmp_path / "validators.toml"
    key = Identity.from_seed(bytes(32)).public.hex()
    entry = f'[[validator]]\npeer_id = "a"\naccount = "b"\npublic_key = "{key}"\naddress = []\nstake = 7\n'
    path.write_text(entry)
    said = f"{path}: 1 member, 1 validator, stake 7, 1 without an address\n"
    assert await zmesh("registry", "check", path) == (0, said, "")
    path.write_text(entry * 2)
    said = f"zmesh: registry {path}, validators 1 and 2 share the peer_id: each must have its own\n"
    assert await zmesh("registry", "check", path) == (2, "", said)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid key, one that everybody may read, and registries with a mistake."""
    for name, mode in (("node.key", 0o600), ("open.key", 0o644)):
        (tmp_path / name).write_text(SECRET)
        (tmp_path / name).chmod(mode)
    (tmp_path / "torn.toml").write_text('[[validator]]\npeer_id = "a')
    (tmp_path / "short.toml").write_text('[[validator]]\npeer_id = "a"\naccount = "b"\npublic_key = "c"\n')
    return tmp_path


async def refusal(folder: Path, **settings: str) -> str:
    """What ``zmesh run`` says of settings that are valid but for these: one line, which may be one of its log."""
    valid = {
        "MESH_PEER_ID": "validator_001",
        "MESH_LISTEN_HOST": "127.0.0.1",
        "MESH_LISTEN_PORT": "0",
        "MESH_PRIVATE_KEY": str(folder / "node.key"),
    }
    status, out, err = await zmesh("run", **{**valid, **settings})
    assert (status, out) == (2, "")
    assert err.endswith("\n")
    assert SECRET[:-1] not in err
    *logged, sentence = err.splitlines()
    assert {json.loads(line)["event"] for line in logged} <= {"health_warning"}
    return problem_of(sentence)


def problem_of(line: str) -> str:
    """What an error line says, in plain text or as a line of the log."""
    if line.startswith("zmesh: "):
        return line.removeprefix("zmesh: ")
    logged = json.loads(line)
    assert (logged["event"], logged["level"]) == ("start_failed", "error")
    return str(logged["problem"])


@pytest.mark.parametrize(
    "variable, value, sentence",
    [
        (
            "MESH_HEARTBEAT_INTERVAL",
            "-5",
            "heartbeat_interval (MESH_HEARTBEAT_INTERVAL) must be a number of seconds above 0 and at most 86400, "
            "such as 60, not '-5'",
        ),
        (
            "MESH_LISTEN_PORT",
            "65536",
            "listen_port (MESH_LISTEN_PORT) must be a port from 1 to 65535, or 0 for any free one, not '65536'",
        ),
        (
            "MESH_ADVERTISE",
            "/ip4/192.0.2.1/udp/9090",
            "advertise (MESH_ADVERTISE): address '/ip4/192.0.2.1/udp/9090' is not a multiaddr: "
            "it must be /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT, such as /ip4/192.0.2.1/tcp/9090",
        ),
        (
            "MESH_PRIVATE_KEY",
            "{folder}/open.key",
            "private_key (MESH_PRIVATE_KEY): key file {folder}/open.key is accessible to others "
            "(mode 0644): run `chmod 600 {folder}/open.key`",
        ),
        (
            "MESH_PRIVATE_KEY",
            SECRET[:-1],
            "private_key (MESH_PRIVATE_KEY): the private key of 63 characters (not shown) is neither 64 hexadecimal "
            "digits nor the path of a key file: `zmesh key new PATH` makes one",
        ),
        (
            "MESH_REGISTRY",
            "{folder}/torn.toml",
            "registry {folder}/torn.toml is not TOML: Unterminated string (at end of document); "
            'it must have a table [[validator]] for each one, with lines such as peer_id = "a"',
        ),
        (
            "MESH_REGISTRY",
            "{folder}/short.toml",
            "registry {folder}/short.toml, validator 1: address is missing: "
            "peer_id, account, public_key, address must all be given",
        ),
        (
            "MESH_REGISTRY",
            "{folder}/none.toml",
            "registry {folder}/none.toml cannot be read: No such file or directory",
        ),
    ],
    ids=["interval", "port", "multiaddr", "open key file", "key", "torn registry", "short registry", "no registry"],
)
async def test_a_node_with_a_bad_setting_says_what_where_and_what_it_must_be_in_one_sentence_and_ends(
    folder: Path, variable: str, value: str, sentence: str
) -> None:
    said = await refusal(folder, **{variable: value.replace("{folder}", str(folder))})
    assert said == sentence.replace("{folder}", str(folder))


@pytest.mark.parametrize(
    "variable, hint",
    [
        ("MESH_LISTEN_PORT", "or stop what listens there"),
        ("MESH_ROUTER_PORT", "or to 0 for any"),
        ("MESH_GOSSIP_PORT", "or to 0 for any"),
    ],
)
async def test_a_port_in_use_is_named_with_the_setting_that_changes_it(folder: Path, variable: str, hint: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = await refusal(folder, **{variable: str(port)})
    assert said == f"cannot listen on 127.0.0.1:{port}: Address already in use; set {variable} to a free port, {hint}"


async def test_what_is_wrong_with_an_option_is_one_sentence_too() -> None:
    status, out, err = await zmesh("run", "--listen-port", "65536", MESH_PEER_ID="validator_001")
    sentence = "listen_port (MESH_LISTEN_PORT) must be a port from 1 to 65535, or 0 for any free one, not '65536'"
    assert (status, out, err) == (2, "", f"zmesh: {sentence}\n")


@pytest.mark.parametrize("form", ["json", "console"])
async def test_a_start_that_fails_says_so_once_in_the_form_of_the_log(form: str, folder: Path) -> None:
    settings = {"MESH_PEER_ID": "validator_001", "MESH_LISTEN_HOST": "127.0.0.1", "MESH_LOG_FORMAT": form}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = await zmesh("run", "--listen-port", port, "--key", folder / "node.key", **settings)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("zmesh: ") == (form == "console")
    assert problem_of(line).startswith(f"cannot listen on 127.0.0.1:{port}: Address already in use")


async def test_a_node_that_cannot_keep_strangers_out_says_one_sentence_and_has_a_status_of_its_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text("from zmesh.transports import selftest; selftest.PATIENCE = 0.0")
    local = {"MESH_PEER_ID": "me", "MESH_LISTEN_HOST": "127.0.0.1", "MESH_LISTEN_PORT": "0"}
    status, out, err = await zmesh("run", PYTHONPATH=os.pathsep.join(map(str, (tmp_path, ROOT))), **local)
    assert (status, out) == (3, "")
    sentence = problem_of(err.splitlines()[-1])
    assert re.fullmatch(r"the self-test of \S+ got no answer within 0 s: .*", sentence)


async def test_help_lists_every_exit_status() -> None:
    status, out, err = await zmesh("--help")
    assert (status, err) == (0, "")
    assert re.findall(r"(\d+) (?:if|after)", " ".join(out.split())) == ["0", "1", "2", "3", "130", "143"]


async def test_a_node_runs_is_well_and_ends_on_sigterm(tmp_path: Path) -> None:
    key = tmp_path / "node.key"
    key.write_text(SECRET)
    key.chmod(0o600)
    async with running("--key", key) as (process, port):
        status, out, err = await zmesh("health", "--strict", MESH_LISTEN_PORT=str(port))
        assert (status, err) == (0, "")
        said = json.loads(out)
        assert (said["status"], said["peer_id"], said["running"]) == ("healthy", "validator_001", True)
        await end(process, signal.SIGTERM)
    status, _, err = await zmesh("health", f"127.0.0.1:{port}")
    assert (status, err) == (1, f"zmesh: 127.0.0.1:{port} does not answer: Connection refused\n")


async def test_a_node_that_nobody_can_join_says_so_once_it_has_started() -> None:
    async with running() as (process, _), asyncio.timeout(SECONDS):
        assert process.stderr is not None
        said = json.loads(await process.stderr.readline())
        assert (said["event"], said["level"], said["problem"]) == ("health_warning", "warning", NOBODY)


async def test_a_node_ends_on_sigint_as_well() -> None:
    async with running() as (process, _):
        await end(process, signal.SIGINT)


async def end(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Tell a node to end, and see it do so quietly."""
    process.send_signal(number)
    out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"")
    levels = [json.loads(line)["level"] for line in err.splitlines()]
    assert "error" not in levels
    assert SECRET not in err.decode()


async def test_a_node_that_waits_for_its_chain_ends_when_it_is_told_to() -> None:
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as chain, asyncio.timeout(SECONDS):
        url = f"ws://127.0.0.1:{chain.sockets[0].getsockname()[1]}"
        named = {"MESH_PEER_ID": "me", "MESH_LISTEN_PORT": "0", "MESH_PRIVATE_KEY": SECRET}
        process = await start("run", "--registry", "substrate", BLOCKCHAIN_RPC=url, **named)
        await asked.wait()
        process.terminate()
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")


async def test_the_chain_can_be_chosen_by_an_option_too() -> None:
    away = {"BLOCKCHAIN_RPC": "ws://127.0.0.1:1"}
    async with running("--registry", "substrate", **away) as (process, port):
        status, out, _ = await zmesh("health", f"127.0.0.1:{port}")
        assert (status, json.loads(out)["registry"]["source"]) == (0, "chain ws://127.0.0.1:1")
        process.terminate()
        assert await process.wait() == 0


async def test_a_mistyped_variable_and_a_key_that_does_not_stay_are_warned_about() -> None:
    process = await start(
        "run", MESH_PEER_ID="me", MESH_LISTEN_HOST="127.0.0.1", MESH_LISTEN_PORT="0", MESH_GOSIP_FANOUT="3"
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(SECONDS):
            first, second = [json.loads(await process.stderr.readline()) for _ in range(2)]
        assert first["problem"] == "MESH_GOSIP_FANOUT is set but is not a setting: did you mean MESH_GOSSIP_FANOUT?"
        assert (second["event"], second["level"]) == ("temporary_key", "warning")
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    "body, options, status",
    [
        (b'{"running": true, "status": "degraded"}', [], 0),
        (b'{"running": true, "status": "degraded"}', ["--strict"], 1),
        (b'{"running": false, "status": "stopped"}', [], 1),
        (b"[]", [], 1),
        (b"hello", [], 1),
    ],
    ids=["degraded", "strict", "stopped", "list", "text"],
)
async def test_health_exits_by_what_the_node_says(
    body: bytes, options: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a thread and not a process of its own: only the exit status differs."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with asyncio.timeout(SECONDS), server:
        address = "{}:{}".format(*server.sockets[0].getsockname())
        command = ["health", address, *options]
        assert (await asyncio.to_thread(app, command, standalone_mode=False) or 0) == status
    assert capsys.readouterr() == (body.decode() + "\n", "")


async def test_a_malformed_address_is_refused() -> None:
    status, out, err = await zmesh("health", "localhost")
    assert (status, out) == (2, "")
    assert err.startswith("zmesh: address 'localhost' is not host and port: ")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["runn"], "no such command 'runn'"),
        (["--foo"], "no such option: --foo"),
        (["health", "--foo"], "no such option: --foo"),
        (["key", "new"], "missing argument 'path'"),
        (["demo", "--peers", "a\nb"], "invalid value for '--peers': "),
    ],
    ids=["command", "option", "option of a command", "argument", "value"],
)
async def test_what_no_command_knows_is_one_sentence_and_names_the_help_to_read(
    arguments: list[str], said: str
) -> None:
    status, out, err = await zmesh(*arguments)
    assert (status, out) == (2, "")
    assert re.fullmatch(f"zmesh: {re.escape(said)}[^\n]* \\(see `zmesh [a-z ]*--help`\\)\n", err)


@pytest.mark.parametrize("arguments", [[], ["key"]], ids=["zmesh", "group"])
async def test_a_command_that_is_not_named_is_answered_with_help(arguments: list[str]) -> None:
    status, out, err = await zmesh(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(" ".join(["Usage: zmesh", *arguments, "[OPTIONS] COMMAND"]))


async def test_a_mistyped_variable_explains_what_is_missing() -> None:
    said = "zmesh: MESH_PEERID is set but is not a setting: did you mean MESH_PEER_ID?\n"
    assert await zmesh("run", MESH_PEERID="a") == (2, "", said)


async def test_health_takes_the_url_of_a_curl_line_and_explains_any_other() -> None:
    for url in ("http://127.0.0.1:1", "http://127.0.0.1:1/health"):
        said = "zmesh: 127.0.0.1:1 does not answer: Connection refused\n"
        assert await zmesh("health", url) == (1, "", said)
    status, out, err = await zmesh("health", "https://127.0.0.1:1")
    assert (status, out) == (2, "")
    assert err.startswith("zmesh: address 'https://127.0.0.1:1' is a URL: it must be HOST:PORT or ")


@pytest.mark.parametrize("asked", ["version", "--version"])
async def test_the_versions_of_a_bug_report_are_printed(asked: str) -> None:
    status, out, err = await zmesh(asked)
    assert (status, err) == (0, "")
    assert out.startswith("zmesh-net ")
    assert "libzmq" in out
    assert f"core {build()}" in out
