"""Keys: derived as the RFCs say, read from where they may be, refused in one sentence, never shown."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import traceback
from pathlib import Path

import nacl.bindings
import nacl.signing
import pytest

from zmesh.core.errors import ConfigError
from zmesh.files import refuse_exposed
from zmesh.identity import Identity, create_key_file, curve_image, load_key, parse_public_key, verify

# RFC 8032, section 7.1, tests 1 and 2.
SEED_1 = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC_1 = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
SIGNATURE_1 = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
    "d25bf5f0595bbe24655141438e7a100b"
)
SEED_2 = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")

# The eight points of small order and their other encodings, as libsodium lists them (ed25519_ref10.c).
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def test_a_seed_gives_the_key_and_signature_of_the_rfc() -> None:
    identity = Identity.from_seed(SEED_1)
    assert identity.public == PUBLIC_1
    assert identity.sign(b"") == SIGNATURE_1
    assert verify(PUBLIC_1, b"", SIGNATURE_1)


def test_both_halves_of_the_curve_key_belong_together() -> None:
    identity = Identity.from_seed(SEED_2)
    assert identity.curve_public == curve_image(identity.public)
    assert identity.curve_public == nacl.bindings.crypto_scalarmult_base(identity.curve_secret)


def test_a_signature_counts_for_its_key_and_data_alone() -> None:
    one, two = Identity.generate(), Identity.generate()
    signature = one.sign(b"data")
    assert verify(one.public, b"data", signature)
    assert not verify(two.public, b"data", signature)
    assert not verify(one.public, b"date", signature)
    assert not verify(one.public, b"", b"data" + signature[:60])
    for position in range(64):
        flipped = bytearray(signature)
        flipped[position] ^= 1
        assert not verify(one.public, b"data", bytes(flipped))


@pytest.mark.parametrize("length", [0, 1, 31, 33, 63, 64, 65, 128])
def test_keys_and_signatures_of_a_wrong_length_verify_nothing(length: int) -> None:
    identity = Identity.from_seed(SEED_1)
    if length != 64:
        assert not verify(identity.public, b"", bytes(length))
    assert not verify(bytes(length), b"", SIGNATURE_1)


@pytest.mark.parametrize("key", SMALL_ORDER)
@pytest.mark.parametrize("sign_bit", [0, 0x80])
def test_a_key_of_small_order_verifies_nothing_and_has_no_image(key: str, sign_bit: int) -> None:
    point = bytearray.fromhex(key)
    point[31] |= sign_bit
    # With R the neutral element and S = 0 the verification equation holds for the neutral key.
    forged = bytes([1]) + bytes(63)
    assert not verify(bytes(point), b"anything", forged)
    with pytest.raises(ConfigError, match="is not an Ed25519 key"):
        curve_image(bytes(point))


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytes([2]) + bytes(31), b"\xff" * 32])
def test_bytes_that_are_no_point_have_no_image(key: bytes) -> None:
    with pytest.raises(
        ConfigError, match=r"^public key .* is not an Ed25519 key: it must be the 32 bytes of a valid point$"
    ):
        curve_image(key)


def test_a_public_key_is_read_from_its_digits_with_or_without_0x() -> None:
    for text in (PUBLIC_1.hex(), f"0x{PUBLIC_1.hex()}", f" {PUBLIC_1.hex().upper()}\n"):
        assert parse_public_key(text) == PUBLIC_1
    for wrong in ("", "0x", PUBLIC_1.hex()[:-1], PUBLIC_1.hex() + "00", "zz" * 32, PUBLIC_1, None, 7):
        with pytest.raises(ConfigError, match=r"^public_key must be the 64 hex digits of an Ed25519 public key, not "):
            parse_public_key(wrong)
    with pytest.raises(ConfigError, match="is not an Ed25519 key"):
        parse_public_key("00" * 32)


def test_a_key_and_its_negative_share_one_image() -> None:
    public = Identity.from_seed(SEED_1).public
    negative = public[:31] + bytes([public[31] ^ 0x80])
    assert curve_image(negative) == curve_image(public)


def test_a_secret_has_no_way_out(tmp_path: Path) -> None:
    identity = Identity.from_seed(SEED_1)
    for text in (repr(identity), str(identity), f"{identity}"):
        assert text == f"Identity({PUBLIC_1.hex()})"
    assert not hasattr(identity, "__dict__")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds a secret"):
            attempt(identity)


@pytest.mark.parametrize("text", [SEED_1.hex(), SEED_1.hex().upper(), "0x" + SEED_1.hex(), f" {SEED_1.hex()}\n"])
def test_a_key_reads_from_hex(text: str) -> None:
    assert load_key(text).public == PUBLIC_1


def test_a_key_reads_from_raw_bytes_and_none_makes_a_fresh_one() -> None:
    assert load_key(SEED_1).public == PUBLIC_1
    assert load_key(None).public != load_key(None).public


SECRETS = [
    SEED_1.hex()[:-1],
    SEED_1.hex() + "00",
    SEED_1.hex()[:-1] + "g",
    SEED_1.hex() * 2,
    "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=",
    "/WGxne9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=",
    "nWGxne9WmC6hEr0ku/sxERJxWl7MmkZcDusAxyuf2A=",
    f"{SEED_1.hex()}.key",
    f"missing/{SEED_1.hex()[:-1]}",
    "bottom drive obey lake curtain smoke basket hold race lonely fit walk//belize",
    "word//a//b",
    "bottom drive obey lake curtain smoke basket hold race lonely fit walk",
    "a\x00b",
    "",
    "x" * 10_000,
]


@pytest.mark.parametrize("value", SECRETS, ids=range(len(SECRETS)))
def test_a_mistyped_secret_is_refused_and_never_repeated(value: str) -> None:
    with pytest.raises(ConfigError, match=r"not shown.*64 hexadecimal digits") as refusal:
        load_key(value)
    printed = "".join(traceback.format_exception(refusal.value))
    assert not value or value not in printed
    assert len(value) < 32 or value[:24] not in printed


@pytest.mark.parametrize("value", [b"", bytes(31), bytes(33), SEED_1 + PUBLIC_1, SEED_1.hex().encode()])
def test_raw_bytes_of_a_wrong_length_are_refused(value: bytes) -> None:
    with pytest.raises(ConfigError, match=rf"must be an Ed25519 seed of 32 bytes, not {len(value)}$"):
        load_key(value)


def test_a_key_file_is_private_from_the_start_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    identity = create_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path).public == identity.public
    assert load_key(str(path)).public == identity.public
    assert os.listdir(tmp_path) == ["node.key"]


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    create_key_file(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"already exists: name a new file"):
        create_key_file(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["node.key"]


def test_a_key_file_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be created: No such file or directory"):
        create_key_file(tmp_path / "missing" / "node.key")


@pytest.mark.parametrize(
    "value", ["mesh.key", "./mesh.key", "missing/mesh", "/missing/validator_belizecity_01/secrets/mesh", "~/mesh.key"]
)
def test_a_key_file_that_does_not_exist_is_named_with_the_command_that_makes_it(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, named in ((value, value), (Path(value), str(Path(value)))):
        with pytest.raises(ConfigError) as refusal:
            load_key(given)
        assert str(refusal.value) == f"key file {named} does not exist: create it with `zmesh key new {named}`"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o601])
def test_a_key_file_open_to_others_is_refused_with_the_command_that_closes_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    create_key_file(path)
    path.chmod(mode)
    with pytest.raises(ConfigError) as refusal:
        load_key(path)
    assert str(refusal.value) == f"key file {path} is accessible to others (mode {mode:04o}): run `chmod 600 {path}`"
    path.chmod(0o400)
    load_key(path)


def status_of(owner: int, mode: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 0, 0, 1, owner, 0, 64, 0, 0, 0))


def test_a_key_file_of_another_user_is_refused() -> None:
    me = os.geteuid()
    with pytest.raises(ConfigError, match=rf"^it belongs to user {me + 1}: run `chown {me} path`$"):
        refuse_exposed(status_of(me + 1, 0o600), "it", "path")


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o640])
def test_a_secret_that_root_lets_the_group_of_this_process_read_is_taken(
    mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    refuse_exposed(status_of(0, mode), "it", "path")


@pytest.mark.parametrize("mode", [0o444, 0o644, 0o660, 0o450, 0o441])
def test_a_secret_of_root_that_all_can_read_or_its_group_can_change_is_refused(
    mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    with pytest.raises(ConfigError, match=rf"^it is accessible to others \(mode {mode:04o}\): run `chmod 640 path`$"):
        refuse_exposed(status_of(0, mode), "it", "path")


def test_what_is_no_key_file_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    for content in (b"", b"secret words", SEED_1, SEED_1.hex().encode() + b"\nmore", b"\xff" * 5000):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(
            ConfigError, match=r"must hold 64 hexadecimal digits, not these \d+ bytes \(not shown\)"
        ) as refusal:
            load_key(path)
        assert "secret" not in str(refusal.value)


def test_a_folder_a_pipe_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    before = len(os.listdir("/proc/self/fd"))
    for path, reason in (
        (tmp_path, "must be a regular file"),
        (pipe, "must be a regular file"),
        (tmp_path / "no", "does not exist"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load_key(path)
        with pytest.raises(ConfigError, match=reason):
            load_key(str(path))
    assert len(os.listdir("/proc/self/fd")) == before
