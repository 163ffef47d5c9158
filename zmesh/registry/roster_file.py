"""The file of validators: TOML bytes to a ``Roster``, strictly.

A file is a list of entries; ``address`` is one multiaddr or a list of at most 8 (an empty one for a validator that
cannot be dialled), ``stake``, ``capabilities`` and ``is_validator`` may be left out::

    [[validator]]
    peer_id = "validator_001"
    account = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
    public_key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    address = "/ip4/192.0.2.1/tcp/9090"
    stake = 5000000000000
    capabilities = ["train"]
    is_validator = true

``account`` is an SS58 address of the chain that the mesh belongs to or, if there is none, any name.

Rules
 1. All or nothing: the first fault refuses the whole file, with one sentence that names the file and the entry
    (counted from 1).
 2. An account that looks like SS58 must have its checksum: otherwise votes, limits and reputation would belong to a
    mistyped one.
 3. Pure: bytes in, roster out; ``static.py`` reads and watches.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from zmesh.core.bounds import MAX_ENDPOINTS, MAX_NAME
from zmesh.core.errors import ConfigError
from zmesh.core.sentence import shown
from zmesh.core.types import Endpoint, Member, Roster
from zmesh.identity import parse_public_key
from zmesh.multiaddr import parse_multiaddr
from zmesh.registry.port import MAX_STAKE
from zmesh.ss58 import is_mistyped

MAX_FILE = 16 * 1024 * 1024
"""Bytes of a file: room for 100,000 entries of 160 bytes."""
MAX_ENTRIES = 100_000
"""Entries of a file: ten times the largest mesh that was simulated."""
MAX_CAPABILITIES = 32
"""Capabilities of one validator: words, not a database."""

_REQUIRED = ("peer_id", "account", "public_key", "address")
_OPTIONAL = ("stake", "capabilities", "is_validator")


def parse_roster(content: bytes, source: str) -> Roster:
    """The roster in ``content``; ``source`` names the file in errors.

    Raises ``ConfigError`` with one sentence for anything that is not a valid file of at least one validator.
    """
    if len(content) > MAX_FILE:
        raise ConfigError(f"{source} must not be larger than {MAX_FILE} bytes")
    entries = _entries(content, source)
    members = []
    seen: dict[tuple[str, object], int] = {}
    for number, entry in enumerate(entries, 1):
        try:
            member = _member(entry)
        except ConfigError as error:
            raise ConfigError(f"{source}, validator {number}: {error}") from None
        for what, value in _unique(member):
            first = seen.setdefault((what, value), number)
            if first != number:
                shared = f"{source}, validators {first} and {number} share the {what}"
                raise ConfigError(f"{shared}: each must have its own")
        members.append(member)
    return Roster.of(members)


def _entries(content: bytes, source: str) -> list[Any]:
    try:
        document = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad TOML, numbers or nesting beyond Python's limits
        expected = 'it must have a table [[validator]] for each one, with lines such as peer_id = "a"'
        raise ConfigError(f"{source} is not TOML: {error}; {expected}") from None
    entries = document.pop("validator", [])
    if document:
        raise ConfigError(f"{source} must have only [[validator]], not {shown(min(document))}")
    if not isinstance(entries, list):
        raise ConfigError(f"{source} must have [[validator]] in double brackets")
    if not entries:
        raise ConfigError(f"{source} must name at least one [[validator]]")
    if len(entries) > MAX_ENTRIES:
        raise ConfigError(f"{source} must name at most {MAX_ENTRIES} validators, not {len(entries)}")
    return entries


def _unique(member: Member) -> tuple[tuple[str, object], ...]:
    # P and -P differ in the sign bit alone and have one X25519 image: CURVE could not tell them apart.
    image = member.key[:-1] + bytes([member.key[-1] & 0x7F])
    return (
        ("peer_id", member.peer_id),
        ("account", member.account),
        ("public_key", member.key),
        ("X25519 image of their keys (one is the other's negative)", image),
    )


def _member(entry: object) -> Member:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{shown(entry)} must be a table of keys and values")
    for field in _REQUIRED:
        if field not in entry:
            raise ConfigError(f"{field} is missing: {', '.join(_REQUIRED)} must all be given")
    unknown = sorted(set(entry).difference(_REQUIRED, _OPTIONAL))
    if unknown:
        raise ConfigError(f"each key must be one of {', '.join(_REQUIRED + _OPTIONAL)}, not {shown(unknown[0])}")
    return Member(
        key=parse_public_key(entry["public_key"]),
        account=_account(entry["account"]),
        peer_id=_text("peer_id", entry["peer_id"]),
        endpoints=_endpoints(entry["address"]),
        stake=_stake(entry.get("stake", 0)),
        is_validator=_flag(entry.get("is_validator", True)),
        capabilities=_capabilities(entry.get("capabilities", [])),
    )


def _text(field: str, value: object) -> str:
    """A name: printable, so that it can appear in a log, and no longer than the wire allows."""
    if isinstance(value, str) and _is_name(value):
        return value
    raise ConfigError(f"{field} must be a printable string of 1 to {MAX_NAME} bytes, not {shown(value)}")


def _is_name(text: str) -> bool:
    return text.isprintable() and text.strip() == text and 1 <= len(text.encode("utf-8", "replace")) <= MAX_NAME


def _account(value: object) -> str:
    account = _text("account", value)
    if is_mistyped(account):
        raise ConfigError(f"account {shown(account)} looks like SS58, but its checksum is wrong: copy it again")
    return account


def _endpoints(value: object) -> tuple[Endpoint, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or len(texts) > MAX_ENDPOINTS:
        raise ConfigError(f"address must be a multiaddr or a list of at most {MAX_ENDPOINTS}, not {shown(value)}")
    endpoints = tuple(parse_multiaddr(text) for text in texts)
    if len(set(endpoints)) != len(endpoints):
        raise ConfigError(f"address {shown(value)} names the same place twice")
    return endpoints


def _stake(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_STAKE:
        return value
    raise ConfigError(f"stake must be a whole number, 0 or more, in the chain's smallest unit, not {shown(value)}")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigError(f"is_validator must be true or false, not {shown(value)}")


def _capabilities(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_CAPABILITIES:
        raise ConfigError(f"capabilities must be a list of at most {MAX_CAPABILITIES} strings, not {shown(value)}")
    return tuple(_text("capability", one) for one in value)
