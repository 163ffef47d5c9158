"""Well-known accounts, as every development chain has them, and what they sign.

Nothing of value may ever belong to them: anyone who knows the name (``//Alice``) has the key.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from zmesh.account import AccountKey
from zmesh.delegation import DAY, USUAL_DAYS, Delegation, Scheme, Statement, encode_delegation
from zmesh.identity import Identity
from zmesh.ss58 import to_ss58


class DevAccount(NamedTuple):
    """An sr25519 account that can sign."""

    uri: str
    id: bytes
    """32 bytes, its AccountId."""
    address: str
    """SS58 with prefix 42, which chains accept as one of their own."""
    sign: Callable[[bytes], bytes]
    """64 bytes, sr25519."""

    def says(self, mesh: Identity, genesis: bytes, network: str = "zmesh") -> Statement:
        """A statement that ``mesh`` speaks for it, from a minute ago and for the usual time; ``_replace`` makes it a
        lie."""
        now = int(time.time())
        return Statement(network, genesis, self.id, mesh.public, now - 60, now - 60 + USUAL_DAYS * DAY, now)

    def delegate(self, mesh: Identity, statement: Statement) -> Delegation:
        """``statement``, signed by the account and by the mesh key."""
        return encode_delegation(statement, Scheme.SR25519, self.sign(statement.text), mesh.sign)


def dev_account(uri: str) -> DevAccount:
    """The account of a name such as ``//Alice``."""
    key = AccountKey(uri, Scheme.SR25519)
    return DevAccount(uri, key.account, to_ss58(key.account), key.sign)
