"""The file of validators: what it may hold, and that the last good one stays in force."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from zmesh.core.errors import ConfigError
from zmesh.core.types import Endpoint, Member, Roster
from zmesh.identity import Identity
from zmesh.registry.port import Registry, ValidatorSet
from zmesh.registry.roster_file import MAX_FILE, parse_roster
from zmesh.registry.static import StaticRegistry
from zmesh.rpc import probe_rpc, rpc_endpoint

KEYS = [Identity.from_seed(bytes([n]) * 32).public for n in range(5)]


def entry(number: int = 0, **changes: Any) -> dict[str, str | None]:
    """One validator as TOML values; a change to None leaves the field out."""
    fields: dict[str, str | None] = {
        "peer_id": f'"validator_{number}"',
        "account": f'"account_{number}"',
        "public_key": f'"{KEYS[number].hex()}"',
        "address": f'"/ip4/192.0.2.{number}/tcp/9090"',
    }
    return {**fields, **changes}


def toml(*entries: dict[str, str | None]) -> bytes:
    lines = []
    for fields in entries:
        lines.append("[[validator]]")
        lines += [f"{name} = {value}" for name, value in fields.items() if value is not None]
    return "\n".join(lines).encode()


def test_a_file_reads_as_its_members() -> None:
    rich = entry(
        1,
        public_key=f'"0x{KEYS[1].hex()}"',
        address='["/dns/a.org/tcp/1", "/ip6/::1/tcp/2"]',
        stake="5000000000000",
        capabilities='["train", "vote"]',
        is_validator="false",
    )
    assert parse_roster(toml(entry(), rich, entry(2, address="[]")), "f").members == (
        Member(KEYS[0], "account_0", "validator_0", (Endpoint("192.0.2.0", 9090),)),
        Member(
            key=KEYS[1],
            account="account_1",
            peer_id="validator_1",
            endpoints=(Endpoint("a.org", 1), Endpoint("::1", 2)),
            stake=5000000000000,
            is_validator=False,
            capabilities=("train", "vote"),
        ),
        Member(KEYS[2], "account_2", "validator_2"),
    )


STAKE = "stake must be a whole number, 0 or more, in the chain's smallest unit"
NEGATIVE = KEYS[0][:31] + bytes([KEYS[0][31] ^ 0x80])


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"", "f must name at least one [[validator]]"),
        (b"validator = []", "f must name at least one [[validator]]"),
        (b"[validator]", "f must have [[validator]] in double brackets"),
        (b"validator = [3]", "f, validator 1: 3 must be a table of keys and values"),
        (b"network = 'x'", "f must have only [[validator]], not 'network'"),
        (toml(entry(), entry(1, account=None)), "f, validator 2: account is missing: peer_id, account, "),
        (
            toml(entry(adress='"x"')),
            "f, validator 1: each key must be one of peer_id, account, public_key, address, stake, capabilities,"
            " is_validator, not 'adress'",
        ),
        (toml(entry(), entry(1), entry(2, peer_id='"validator_0"')), "f, validators 1 and 3 share the peer_id: each"),
        (toml(entry(), entry(1, account='"account_0"')), "f, validators 1 and 2 share the account: each"),
        (toml(entry(), entry(1, public_key=f'"{KEYS[0].hex()}"')), "f, validators 1 and 2 share the public_key: each"),
        (
            toml(entry(), entry(1, public_key=f'"{NEGATIVE.hex()}"')),
            "f, validators 1 and 2 share the X25519 image of their keys (one is the other's negative): each",
        ),
        (
            toml(entry(public_key='"ab"')),
            "f, validator 1: public_key must be the 64 hex digits of an Ed25519 public key, not 'ab'",
        ),
        (
            toml(entry(public_key=f'"{"ab " * 32}"')),
            "f, validator 1: public_key must be the 64 hex digits of an Ed25519 public key, not ",
        ),
        (
            toml(entry(public_key=f'"{"zz" * 32}"')),
            "f, validator 1: public_key must be the 64 hex digits of an Ed25519 public key, not ",
        ),
        (
            toml(entry(public_key="3")),
            "f, validator 1: public_key must be the 64 hex digits of an Ed25519 public key, not 3",
        ),
        (toml(entry(public_key=f'"{"00" * 32}"')), f"f, validator 1: public key {'00' * 32} is not an Ed25519 key"),
        (
            toml(entry(), entry(1, account='"5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ"')),
            "f, validator 2: account '5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ' looks like SS58, but its"
            " checksum is wrong: copy it again",
        ),
        (toml(entry(address='"1.2.3.4:9090"')), "f, validator 1: address '1.2.3.4:9090' is not a multiaddr: "),
        (toml(entry(address="3")), "f, validator 1: address must be a multiaddr or a list of at most 8, not 3"),
        (toml(entry(address="[3]")), "f, validator 1: address must be a multiaddr or a list of at most 8, not [3]"),
        (
            toml(entry(address=str(["/dns/a/tcp/1"] * 9))),
            "f, validator 1: address must be a multiaddr or a list of at most 8, not [",
        ),
        (toml(entry(address=str(["/dns/a/tcp/1"] * 2))), "f, validator 1: address ["),
        (toml(entry(stake="-1")), f"f, validator 1: {STAKE}, not -1"),
        (toml(entry(stake="1.5")), f"f, validator 1: {STAKE}, not 1.5"),
        (toml(entry(stake="true")), f"f, validator 1: {STAKE}, not True"),
        (toml(entry(stake=str(2**128))), f"f, validator 1: {STAKE}, not {2**128}"),
        (toml(entry(is_validator="1")), "f, validator 1: is_validator must be true or false, not 1"),
        (
            toml(entry(capabilities='"train"')),
            "f, validator 1: capabilities must be a list of at most 32 strings, not 'train'",
        ),
        (
            toml(entry(capabilities="[1]")),
            "f, validator 1: capability must be a printable string of 1 to 128 bytes, not 1",
        ),
        (toml(entry(peer_id='""')), "f, validator 1: peer_id must be a printable string of 1 to 128 bytes, not ''"),
        (
            toml(entry(peer_id='"a\\nb"')),
            r"f, validator 1: peer_id must be a printable string of 1 to 128 bytes, not 'a\nb'",
        ),
        (
            toml(entry(peer_id=f'"{"é" * 65}"')),
            "f, validator 1: peer_id must be a printable string of 1 to 128 bytes, not ",
        ),
        (b"[[validator]", "f is not TOML: "),
        (b"\xff", "f is not TOML: "),
        (b"x = " + b"[" * 100_000, "f is not TOML: "),
        (b"x = 1" + b"0" * 10_000, "f is not TOML: "),
        (b"#" * (MAX_FILE + 1), f"f must not be larger than {MAX_FILE} bytes"),
    ],
    ids=range(37),
)
def test_a_malformed_file_is_refused_by_file_entry_and_what_it_must_be(content: bytes, sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_roster(content, "f")
    assert str(refusal.value).startswith(sentence)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(ConfigError, match="f must name at most 100000 validators, not 100001"):
        parse_roster(b"validator = [" + b"{}," * 100_001 + b"]", "f")


@dataclass
class Watched:
    """A registry file under test, with a clock of its own and every roster that was handed over."""

    path: Path
    now: float = 1_000_000.0
    sets: list[ValidatorSet] = field(default_factory=list)

    def write(self, content: bytes) -> None:
        """Replace the file as a deployment does, long enough ago for its time of change to be trusted."""
        staged = self.path.with_suffix(".new")
        staged.write_bytes(content)
        os.utime(staged, (self.now - 100, self.now - 100))
        staged.replace(self.path)

    def names(self) -> list[list[str]]:
        return [[member.peer_id for member in found.roster.members] for found in self.sets]


@pytest.fixture
async def watched(tmp_path: Path) -> Watched:
    watched = Watched(tmp_path / "validators.toml")
    watched.write(toml(entry(0)))
    return watched


@pytest.fixture
async def registry(watched: Watched) -> AsyncIterator[StaticRegistry]:
    """A started registry that looks only when a test polls it."""
    registry = StaticRegistry(watched.path, interval=3600, mono=lambda: watched.now, wall=lambda: watched.now)
    await registry.start(watched.sets.append)
    yield registry
    await registry.stop()


async def test_a_change_counts_once_it_was_found_twice(watched: Watched, registry: StaticRegistry) -> None:
    watched.write(toml(entry(0), entry(1)))
    await registry.poll()
    assert watched.names() == [["validator_0"]]
    assert await registry.read() is watched.sets[-1]
    assert watched.names() == [["validator_0"], ["validator_0", "validator_1"]]
    await registry.poll()
    assert len(watched.sets) == 2


async def test_a_file_caught_half_written_cuts_nobody_off(watched: Watched, registry: StaticRegistry) -> None:
    watched.write(toml(entry(0), entry(1), entry(2)))
    await registry.poll()
    await registry.poll()
    half, whole = toml(entry(0)) + b"\n", toml(entry(0), entry(1), entry(2), entry(3))
    watched.path.write_bytes(half)
    await registry.poll()
    watched.path.write_bytes(whole)
    await registry.poll()
    await registry.poll()
    assert [len(found) for found in watched.sets] == [1, 3, 4]


async def test_a_change_that_keeps_time_and_size_is_found(watched: Watched, registry: StaticRegistry) -> None:
    """Within the coarseness of the file system's clock only the content tells."""
    watched.now = watched.path.stat().st_mtime + 1
    watched.write(toml(entry(0), entry(1)))
    os.utime(watched.path, (watched.now, watched.now))
    await registry.poll()
    await registry.poll()
    before = watched.path.stat()
    with watched.path.open("r+b") as file:
        file.write(toml(entry(0), entry(2)))
    os.utime(watched.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    await registry.poll()
    await registry.poll()
    assert watched.names()[1:] == [["validator_0", "validator_1"], ["validator_0", "validator_2"]]


async def test_a_malformed_change_keeps_the_last_good_roster_and_warns_once(
    watched: Watched, registry: StaticRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    good = registry.status()
    assert good.problem is None
    assert good.members == 1
    watched.write(b"[[validator]]")
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            watched.now += 1
            await registry.poll()
    assert watched.names() == [["validator_0"]]
    missing = "peer_id is missing: peer_id, account, public_key, address must all be given"
    problem = f"registry {watched.path}, validator 1: {missing}"
    assert [record.getMessage() for record in caplog.records] == [f"registry_kept problem='{problem}' members=1"]
    status = registry.status()
    assert status.problem == problem
    assert (status.members, status.age) == (1, 5.0)
    watched.write(toml(entry(1)))
    await registry.poll()
    await registry.poll()
    assert watched.names() == [["validator_0"], ["validator_1"]]
    assert (registry.status().problem, registry.status().age) == (None, 0.0)


async def test_a_malformed_change_is_parsed_once(
    watched: Watched, registry: StaticRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file that stays malformed must not be parsed every second."""
    parsed: list[bytes] = []

    def parse(content: bytes, source: str) -> Roster:
        parsed.append(content)
        return parse_roster(content, source)

    monkeypatch.setattr("zmesh.registry.static.parse_roster", parse)
    watched.write(b"[[validator]]")
    for _ in range(5):
        await registry.poll()
    assert parsed == [b"[[validator]]"]


async def test_a_missing_file_keeps_the_roster_until_it_is_back(
    watched: Watched, registry: StaticRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    watched.path.unlink()
    await registry.poll()
    await registry.poll()
    assert registry.status().problem == f"registry {watched.path} cannot be read: No such file or directory"
    assert len(caplog.records) == 1
    watched.write(toml(entry(0)))
    await registry.poll()
    assert registry.status().problem is None
    assert watched.names() == [["validator_0"]]


async def test_the_watch_finds_a_change_by_itself_and_survives_a_fault_of_its_listener(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    changes: asyncio.Queue[ValidatorSet] = asyncio.Queue()

    def take(found: ValidatorSet) -> None:
        changes.put_nowait(found)
        if len(found) == 2:
            raise LookupError("a listener's fault")

    registry: Registry = StaticRegistry(watched.path, interval=0.001)
    async with asyncio.timeout(20):
        await registry.start(take)
        assert len(await changes.get()) == 1
        watched.write(toml(entry(0), entry(1)))
        assert len(await changes.get()) == 2
        watched.write(toml(entry(0), entry(1), entry(2)))
        assert len(await changes.get()) == 3
        await registry.stop()
        await registry.stop()
    assert "registry_change_not_taken" in [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("content", [None, b"", b"[[validator]]"])
async def test_a_registry_that_was_never_good_does_not_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "validators.toml"
    if content is not None:
        path.write_bytes(content)
    registry = StaticRegistry(path)
    with pytest.raises(ConfigError, match=f"registry {path}"):
        await registry.start(lambda found: None)
    await registry.stop()


async def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a regular file"):
        await StaticRegistry(tmp_path).start(lambda found: None)


@pytest.mark.parametrize(
    "url, endpoint",
    [
        ("ws://localhost:9944", Endpoint("localhost", 9944)),
        ("wss://user:hunter2@chain.example.org/rpc", Endpoint("chain.example.org", 443)),
        ("http://[::1]", Endpoint("::1", 80)),
    ],
)
def test_the_chains_place_is_known_without_its_password(url: str, endpoint: Endpoint) -> None:
    assert rpc_endpoint(url) == endpoint


async def test_a_chain_that_listens_is_found_and_one_that_does_not_is_named() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(20):
        assert await probe_rpc(f"ws://u:hunter2@127.0.0.1:{port}", 10) is None
        server.close()
        await server.wait_closed()
        assert await probe_rpc(f"ws://u:hunter2@127.0.0.1:{port}", 10) == (
            f"the chain's RPC endpoint at 127.0.0.1:{port} cannot be reached: Connection refused"
        )


async def test_a_name_with_several_addresses_is_answered_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_where: object) -> None:
        raise OSError("Multiple exceptions: [Errno 111] ..., [Errno 111] ...")

    monkeypatch.setattr(asyncio, "open_connection", refused)
    assert await probe_rpc("ws://localhost:9944", 1) == (
        "the chain's RPC endpoint at localhost:9944 cannot be reached: none of its addresses accepts a connection"
    )


async def test_a_chain_that_is_slow_to_answer_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_where: object) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(asyncio, "open_connection", never)
    async with asyncio.timeout(20):
        assert await probe_rpc("ws://10.0.0.1:1", 0.01) == (
            "the chain's RPC endpoint at 10.0.0.1:1 did not answer within 0.01 s"
        )
