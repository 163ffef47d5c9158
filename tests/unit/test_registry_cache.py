"""The set on disk: it survives a restart, and nothing that a disk can do to it is taken for a set."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.now import Now
from zmesh.core.types import Endpoint
from zmesh.registry import cache as cache_module
from zmesh.registry import codec
from zmesh.registry.cache import FILE, SAVE_GAP, SAVE_SECONDS, Cache, Cached
from zmesh.registry.codec import Snapshot, packed, plain_of, snapshot_of, unpacked
from zmesh.registry.port import Account

ALICE = Account(bytes([1]) * 32, "alice", 2**128 - 1, False, 12.5, (Endpoint("192.0.2.1", 9090), Endpoint("a.org", 1)))
BOB = Account(bytes([2]) * 32, "bob")
SNAPSHOT = Snapshot(
    genesis=b"g" * 32,
    prefix=42,
    block=7,
    hash=b"h" * 32,
    reader="session",
    accounts=MappingProxyType({ALICE.id: ALICE, BOB.id: BOB}),
)


def test_a_stored_set_is_read_as_it_was(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.load() is None
    assert cache.store(SNAPSHOT, 1_700_000_000.5) is None
    assert cache.load() == Cached(SNAPSHOT, 1_700_000_000.5)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


async def test_a_set_that_changed_is_saved_at_once_and_one_that_stays_now_and_then(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.is_due(0.0)
    await cache.save(SNAPSHOT, 0.0, Now(0.0, 1_000.0))
    assert not cache.is_due(SAVE_SECONDS)
    assert cache.is_due(SAVE_SECONDS + 1.0)

    (tmp_path / FILE).unlink()
    await cache.save(SNAPSHOT, 0.0, Now(1.0, 1_001.0))
    assert not (tmp_path / FILE).exists(), "it was stored already"
    cache.replaced()
    assert not cache.is_due(SAVE_GAP)
    assert cache.is_due(SAVE_GAP + 0.1)
    await cache.save(SNAPSHOT, 2.0, Now(6.0, 1_006.0))
    assert cache.load() == Cached(SNAPSHOT, 1_002.0)


async def test_the_age_of_a_stored_set_is_known_in_the_next_life(tmp_path: Path) -> None:
    Cache(tmp_path).store(SNAPSHOT, 1_000.0)
    cache = Cache(tmp_path)
    assert await cache.restore(Now(50.0, 1_700.0)) == (SNAPSHOT, -650.0)
    assert cache.is_due(50.0)
    assert await cache.restore(Now(50.0, 900.0)) == (SNAPSHOT, 50.0), "never from the future"
    assert not cache.is_due(60.0)


def test_without_a_folder_nothing_is_kept() -> None:
    assert (Cache(None).store(SNAPSHOT, 1.0), Cache(None).load()) == (None, None)


def test_a_folder_that_takes_no_file_is_told(tmp_path: Path) -> None:
    problem = Cache(tmp_path / "gone").store(SNAPSHOT, 1.0)
    assert problem is not None
    assert problem.endswith("cannot be written: No such file or directory")


def stored(**changes: Any) -> bytes:
    return bytes(msgpack.packb({"version": 1, "wall": 1.0, **plain_of(SNAPSHOT), **changes}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        b"nothing like it",
        stored()[:-1],
        stored() + b"x",
        stored(version=2),
        stored(wall=None),
        stored(wall=float("nan")),
        stored(accounts=[]),
        stored(accounts=[plain_of(SNAPSHOT)["accounts"][0]] * 2),
        stored(genesis=b"short"),
        stored(block=-1),
        stored(prefix=2**14),
    ],
)
def test_a_damaged_file_is_warned_about_and_counts_for_nothing(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert Cache(tmp_path).load() is None
    assert [record.__dict__["zmesh"]["event"] for record in caplog.records] == ["registry_cache_damaged"]


def test_a_file_that_is_too_large_is_not_read_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "MAX_FRAME", 10)
    (tmp_path / FILE).write_bytes(stored())
    assert Cache(tmp_path).load() is None
    assert "larger than 10 bytes" in caplog.text


def test_a_file_is_never_half_of_another(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.store(SNAPSHOT, 1.0)
    cache.store(replace(SNAPSHOT, block=8), 2.0)
    assert cache.load() == Cached(replace(SNAPSHOT, block=8), 2.0)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@given(st.binary(max_size=200))
def test_no_bytes_make_the_codec_fail_otherwise_than_by_its_own_error(content: bytes) -> None:
    with suppress(ValueError):
        snapshot_of(unpacked(content))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=33),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([*plain_of(SNAPSHOT)]), anything, st.integers(0, 5))
def test_a_set_with_one_value_exchanged_is_that_value_or_refused(name: str, value: Any, at: int) -> None:
    plain = plain_of(SNAPSHOT)
    account = [*plain["accounts"][0]]
    account[at] = value
    for changed in ({**plain, name: value}, {**plain, "accounts": [account]}):
        try:
            found = snapshot_of(changed)
        except ValueError:
            continue
        assert plain_of(found) == changed


def test_a_frame_beyond_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_FRAME", 10)
    with pytest.raises(ValueError, match="and must have at most 10"):
        packed({"kind": "more than ten bytes"})
