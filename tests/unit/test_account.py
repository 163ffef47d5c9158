"""Accounts from their secrets: the same that every wallet derives, and no word of the secret anywhere."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest

from zmesh.account import DEVELOPMENT, AccountKey
from zmesh.core.errors import ConfigError
from zmesh.delegation import Scheme
from zmesh.ss58 import parse_account, to_ss58

ALICE = {  # as `subkey inspect //Alice` with each scheme
    Scheme.SR25519: "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
    Scheme.ED25519: "5FA9nQDVg267DEd8m1ZypXLBnvN7SFxYwV7ndqSYGiN9TTpu",
    Scheme.ECDSA: "5C7C2Z5sWbytvHpuLTvzKunnnRwQxft1jiqrLD5rhucQ5S9X",
}
SCHEMES = pytest.mark.parametrize("scheme", list(Scheme), ids=lambda scheme: scheme.name.lower())


@SCHEMES
def test_alice_is_the_alice_of_every_chain(scheme: Scheme) -> None:
    for secret in ("//Alice", f"{DEVELOPMENT}//Alice", f"  {DEVELOPMENT}//Alice\n"):
        assert to_ss58(AccountKey(secret, scheme).account) == ALICE[scheme]


@pytest.mark.parametrize(
    "secret", ["//Alice//stash", "//Alice/soft", "/soft/1//2", f"//{'long' * 9}", "0x" + "17" * 32, DEVELOPMENT]
)
def test_paths_lead_where_the_chains_own_client_goes(secret: str) -> None:
    from substrateinterface import Keypair

    theirs = Keypair.create_from_seed(secret) if secret.startswith("0x") else Keypair.create_from_uri(secret)
    ours = AccountKey(secret, Scheme.SR25519)
    assert ours.account == theirs.public_key
    assert theirs.verify(b"text", ours.sign(b"text"))


def test_a_password_makes_another_account() -> None:
    with_one, without = (AccountKey(f"{DEVELOPMENT}{tail}", Scheme.SR25519) for tail in ("///secret", ""))
    assert with_one.account != without.account


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "hunter2hunter2",
        DEVELOPMENT.replace("walk", "fit"),
        "0x" + "17" * 31,
        "hunter2\nhunter2",
        "//" + "hunter2" * 200,
        "0x" + "17" * 32 + "///hunter2",
    ],
)
@SCHEMES
def test_an_invalid_secret_is_refused_without_a_word_of_it(scheme: Scheme, secret: str) -> None:
    with pytest.raises(ConfigError) as refused:
        AccountKey(secret, scheme)
    said = "".join(traceback.format_exception(refused.value, chain=True))
    told = said[said.rindex("ConfigError") :]
    assert "not shown" in told
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
    for word in ("hunter2", "bottom", "1717"):
        assert word not in told


def test_a_seed_that_is_no_ecdsa_key_is_refused() -> None:
    for digits in ("00" * 32, "ff" * 32):
        with pytest.raises(ConfigError, match="is not a valid ECDSA key: its number is zero or too large"):
            AccountKey("0x" + digits, Scheme.ECDSA)


def test_soft_junctions_are_for_sr25519() -> None:
    for scheme in (Scheme.ED25519, Scheme.ECDSA):
        with pytest.raises(ConfigError, match="has no soft junctions"):
            AccountKey("//Alice/soft", scheme)


@SCHEMES
def test_an_account_shows_its_id_and_nothing_of_its_secret(scheme: Scheme) -> None:
    account = AccountKey("0x" + "17" * 32, scheme)

    assert repr(account) == str(account) == f"AccountKey({scheme.name.lower()}, 0x{account.account.hex()})"
    assert not hasattr(account, "__dict__")
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds a secret"):
            take(account)


def test_an_address_is_read_with_any_prefix() -> None:
    account = AccountKey("//Alice", Scheme.SR25519).account
    for prefix in (0, 2, 42, 1284):
        assert parse_account(to_ss58(account, prefix)) == account
    assert parse_account(f"0x{account.hex()}") == account


@pytest.mark.parametrize(
    "text", ["", "5Alice", "0x17", ALICE[Scheme.SR25519][:-1], ALICE[Scheme.SR25519] + "x", "é", "l"]
)
def test_an_invalid_address_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(
        ConfigError, match="is not an account: it must be an SS58 address, or 0x and 64 hexadecimal digits"
    ):
        parse_account(text)
