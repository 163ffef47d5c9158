"""``zmesh key delegate`` and ``verify`` as an operator meets them; the account's secret shows up nowhere."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.unit.delegation_support import signer
from zmesh.account import AccountKey
from zmesh.cli import app
from zmesh.core.errors import ConfigError
from zmesh.delegation import DAY, Scheme, load_delegation, parse_text, wrap
from zmesh.identity import create_key_file

ROOT = Path(__file__).parents[2]
ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
GENESIS = "0x" + "45" * 32
SECRET = "0x" + "9d61b19deffd5a60" * 4
SECONDS = 60

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's key file; no variable of a mesh is set."""
    for name in [name for name in os.environ if name.startswith(("MESH_", "BLOCKCHAIN_"))]:
        monkeypatch.delenv(name)
    path = tmp_path / "node.key"
    create_key_file(path)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit status and standard output of ``zmesh key``, within this process; what is wrong is a ``ConfigError``."""

    def command(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        status = app(["key", *map(str, arguments)], standalone_mode=False)
        return status or 0, capsys.readouterr().out

    return command


def delegate(key: Path, *more: object) -> list[object]:
    return ["delegate", "--key", key, "--network", "belize", "--genesis", GENESIS, *more]


# ---------------------------------------------------------------- signed here


@pytest.mark.parametrize("scheme", list(Scheme), ids=lambda scheme: scheme.name.lower())
def test_an_account_signs_for_a_key_and_the_result_holds(
    key: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: Scheme
) -> None:
    monkeypatch.setenv("MESH_ACCOUNT_SECRET", "//Alice")
    out, before = tmp_path / "node.delegation", int(time.time())

    status, said = run(*delegate(key, "--scheme", scheme.name.lower(), "--out", out))
    made = load_delegation(out)
    assert status == 0
    assert said.startswith(f"{out}: the key {made.statement.key.hex()} speaks for 5")
    assert out.stat().st_mode & 0o777 == 0o600
    assert made.held_by_key()
    assert made.signed_by_account()
    assert made.statement.account == AccountKey("//Alice", scheme).account
    assert (made.statement.network, made.statement.genesis.hex()) == ("belize", GENESIS[2:])
    assert made.statement.not_after - made.statement.not_before == 30 * DAY
    assert before <= made.statement.sequence <= time.time()
    assert made.statement.not_before <= before - 500

    status, said = run("verify", out)
    lines = dict(line.split(":", 1) for line in said.splitlines())
    assert status == 0
    assert lines["holds"].strip() == "yes"
    assert lines["account"].split()[-1] == f"{scheme.name.lower()})"
    assert lines["mesh key"].strip() == made.statement.key.hex()


def test_without_a_file_the_digits_are_printed(key: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_ACCOUNT_SECRET", "//Alice")
    monkeypatch.setenv("MESH_PRIVATE_KEY", str(key))
    monkeypatch.setenv("MESH_NETWORK", "from the variable")

    options = ["--genesis", GENESIS, "--account", ALICE, "--days", "366", "--sequence", "7"]
    _, digits = run("delegate", *options)
    said = load_delegation(digits).statement
    assert (said.network, said.sequence, said.not_after - said.not_before) == ("from the variable", 7, 366 * DAY)
    assert run("verify", digits.strip())[0] == 0


def test_a_secret_is_read_from_a_file_that_nobody_else_can_read(key: Path, run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "alice.secret"
    secret.write_text(f"{SECRET}\n")
    with pytest.raises(ConfigError, match=r"is accessible to others \(mode 0644\): run `chmod 600 "):
        run(*delegate(key, "--secret-file", secret))
    secret.chmod(0o600)

    _, digits = run(*delegate(key, "--secret-file", secret))
    assert load_delegation(digits).statement.account == AccountKey(SECRET, Scheme.SR25519).account


def test_a_person_is_asked_for_the_secret_without_an_echo(key: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)

    def getpass(prompt: str, **_: object) -> str:
        asked.append(prompt)
        return "//Alice"

    monkeypatch.setattr("getpass.getpass", getpass)

    _, digits = run(*delegate(key, "--account", ALICE))
    assert load_delegation(digits).statement.account == AccountKey("//Alice", Scheme.SR25519).account
    assert len(asked) == 1


def test_a_secret_of_another_account_is_noticed(key: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_ACCOUNT_SECRET", "//Alice")
    with pytest.raises(ConfigError, match=f"the sr25519 account of this secret is {ALICE}, not {BOB}: check --scheme"):
        run(*delegate(key, "--account", BOB))


# ---------------------------------------------------------------- signed elsewhere


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "by a wallet"])
@pytest.mark.parametrize("scheme", list(Scheme), ids=lambda scheme: scheme.name.lower())
def test_a_text_is_printed_signed_elsewhere_and_taken_back(
    key: Path, run: Run, tmp_path: Path, scheme: Scheme, wrapped: bool
) -> None:
    by = signer(1, scheme)
    _, text = run(*delegate(key, "--account", f"0x{by.account.hex()}", "--print"))
    assert parse_text(text.encode()).account == by.account
    printed = tmp_path / "to-sign.txt"
    printed.write_text(text)
    signature = by.sign(wrap(text.encode()) if wrapped else text.encode()) + b"\x01" * (scheme is Scheme.ECDSA)

    options = ["--key", key, "--text", printed, "--signature", f"0x{signature.hex()}"]
    _, digits = run("delegate", *options, "--scheme", scheme.name.lower())
    made = load_delegation(digits)
    assert made.statement.text == text.encode()
    assert (made.wrapped, made.scheme) == (wrapped, scheme)
    assert made.held_by_key()
    assert made.signed_by_account()


def test_a_signature_that_does_not_fit_the_text_is_refused(key: Path, run: Run, tmp_path: Path) -> None:
    by = signer()
    _, text = run(*delegate(key, "--account", f"0x{by.account.hex()}", "--print"))
    printed = tmp_path / "to-sign.txt"
    printed.write_text(text + "\n")
    good = by.sign(text.encode()).hex()
    other = tmp_path / "other.key"
    create_key_file(other)
    for options, said in (
        (
            ["--key", key, "--signature", by.sign(b"something else").hex()],
            "is not this account's sr25519 signature of this text",
        ),
        (
            ["--key", key, "--signature", good, "--scheme", "ed25519"],
            "is not this account's ed25519 signature of this text",
        ),
        (
            ["--key", key, "--signature", good, "--scheme", "ecdsa"],
            "must be 130 hexadecimal digits for ecdsa, not these 128 characters",
        ),
        (
            ["--key", key, "--signature", good[:-2]],
            "must be 128 hexadecimal digits for sr25519, not these 126 characters",
        ),
        (
            ["--key", key, "--signature", "z" * 128],
            "must be 128 hexadecimal digits for sr25519, not these 128 characters",
        ),
        (["--key", other, "--signature", good], "the text is for the key "),
    ):
        with pytest.raises(ConfigError, match=said):
            run("delegate", "--text", printed, *options)
    with pytest.raises(ConfigError, match="--text and --signature must be given together"):
        run("delegate", "--key", key, "--text", printed)
    assert run("delegate", "--key", key, "--text", printed, "--signature", good)[0] == 0


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    "options, said",
    [
        (["--print"], "--print needs --account"),
        (["--print", "--account", "5Nobody"], "is not an account"),
        (["--print", "--account", ALICE, "--days", "367"], "--days must be from 1 to 366, not 367"),
        (["--print", "--account", ALICE, "--days", "0"], "--days must be from 1 to 366, not 0"),
        (["--print", "--account", ALICE, "--sequence", "-1"], "its sequence is"),
        (["--print", "--account", ALICE, "--network", "x" * 65], "is not a name of 1 to 64 bytes"),
        (
            ["--print", "--account", ALICE, "--network", "belize "],
            "--network must be a printable name without blanks around it, not 'belize '",
        ),
        (["--print", "--account", ALICE, "--rpc", "ws://127.0.0.1:1"], "either --genesis or --rpc"),
        ([], "the account's secret is missing"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_sentence(
    key: Path, run: Run, options: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(ConfigError) as refused:
        run(*delegate(key, *options))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_one_that_does_not_hold_is_told_apart(key: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_ACCOUNT_SECRET", "//Alice")
    _, digits = run(*delegate(key))
    encoded = bytearray(bytes.fromhex(digits))
    encoded[-1] ^= 1
    status, said = run("verify", encoded.hex())
    assert (status, said.splitlines()[-1]) == (1, "holds:    no: the mesh key did not sign it")

    for days, problem in ((-2, "no: it begins at "), (31, "no: it ended at ")):
        now = time.time() + days * DAY
        with monkeypatch.context() as later:
            later.setattr("zmesh.cli_keys.time.time", lambda now=now: now)
            status, said = run("verify", digits.strip())
        assert status == 1
        assert problem in said.splitlines()[-1]


# ---------------------------------------------------------------- the chain's genesis


async def served(answer: Callable[[Any], str], use: Callable[[int], Coroutine[Any, Any, Any]]) -> Any:
    """``use`` with the port of a node that answers JSON-RPC over HTTP and websockets at one path."""

    async def both(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            whole = web.Response(text=answer(await request.json()))
            if request.query:
                whole.enable_chunked_encoding()
            return whole
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(answer(await socket.receive_json()))
        await socket.close()
        return socket

    application = web.Application()
    application.router.add_route("*", "/", both)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with asyncio.timeout(SECONDS):
            return await use(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("protocol, path", [("ws", ""), ("http", ""), ("http", "/?in=pieces")])
async def test_the_genesis_is_asked_of_a_node_of_the_chain(protocol: str, path: str) -> None:
    from zmesh.genesis import ask_genesis

    asked: list[Any] = []

    def answer(question: Any) -> str:
        asked.append((question["method"], question["params"]))
        return json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": GENESIS})

    at = f"{protocol}://u:hunter2@127.0.0.1"
    said = await served(answer, lambda port: asyncio.to_thread(ask_genesis, f"{at}:{port}{path}"))
    assert said == GENESIS
    assert asked == [("chain_getBlockHash", [0])]


@pytest.mark.parametrize("junk", ["[]", "hello", '{"error": 1}'])
@pytest.mark.parametrize("protocol", ["ws", "http"])
async def test_a_node_that_is_of_no_chain_is_refused_without_the_password(protocol: str, junk: str) -> None:
    from zmesh.genesis import ask_genesis

    async def ask(port: int) -> str:
        with pytest.raises(ConfigError) as refused:
            await asyncio.to_thread(ask_genesis, f"{protocol}://u:hunter2@127.0.0.1:{port}")
        return str(refused.value)

    said = await served(lambda question: junk, ask)
    assert said.endswith("did not give the chain's genesis hash: it is not a node of a Substrate chain")
    assert "hunter2" not in said


@pytest.mark.parametrize("url", ["localhost:9944", "ftp://localhost", "ws://[", "ws://u:hunter2@127.0.0.1:1"])
def test_an_address_where_no_chain_is_is_refused_in_one_sentence(url: str) -> None:
    from zmesh.genesis import ask_genesis

    with pytest.raises(ConfigError) as refused:
        ask_genesis(url)
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_why_no_chain_answers_is_said_in_the_systems_words() -> None:
    from zmesh.genesis import ask_genesis

    with pytest.raises(ConfigError) as refused:
        ask_genesis("ws://127.0.0.1:1")
    assert str(refused.value) == "ws://127.0.0.1:1 did not give the chain's genesis hash: Connection refused"


async def test_a_web_site_that_is_no_chain_is_refused_by_its_status() -> None:
    from zmesh.genesis import ask_genesis

    async def ask(port: int) -> str:
        with pytest.raises(ConfigError) as refused:
            await asyncio.to_thread(ask_genesis, f"ws://127.0.0.1:{port}/elsewhere")
        return str(refused.value)

    said = await served(lambda question: "", ask)
    assert said.endswith("genesis hash: it answered with status 404, which no node of a chain does")


# ---------------------------------------------------------------- the secret


@pytest.mark.parametrize(
    "scheme, secret, status",
    [
        ("sr25519", SECRET, 0),
        ("ed25519", SECRET[:-1], 2),
        ("ecdsa", f"hunter2 {SECRET}", 2),
        ("ecdsa", "//hunter2", 0),
    ],
)
def test_the_secret_is_in_no_output_of_a_process_that_fails_or_succeeds(
    key: Path, scheme: str, secret: str, status: int
) -> None:
    """Also not in what a developer would see: PYTHONDEVMODE warns of everything that is left lying about."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MESH_ACCOUNT_SECRET": secret, "PYTHONDEVMODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "zmesh", "key", *map(str, delegate(key, "--scheme", scheme))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    for part in ("hunter2", SECRET[2:20]):
        assert part not in done.stdout + done.stderr


def test_no_option_takes_the_secret_itself(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    app(["key", "delegate", "--help"], standalone_mode=False)
    options = {word for word in capsys.readouterr().out.replace("│", " ").split() if word.startswith("--")}
    assert {option for option in options if "secret" in option} == {"--secret-file"}
