"""The kinds of chains that zmesh can read, most specific first. To add one, write its file and list it in
``READERS``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from zmesh.core.errors import ConfigError
from zmesh.registry.chains.belize import BelizeReader
from zmesh.registry.chains.collators import CollatorReader
from zmesh.registry.chains.metadata_map import MetadataMapReader
from zmesh.registry.chains.port import MAX_ACCOUNTS, Chain, ChainError, Found, Reader, refuse_twice
from zmesh.registry.chains.session import SessionReader

AUTOMATIC = "substrate"
"""The setting that chooses a reader by what the chain's metadata offers."""

READERS: Sequence[Reader] = (BelizeReader(), MetadataMapReader(), SessionReader(), CollatorReader())


def reader_name(setting: str) -> str:
    """The reader that ``MESH_REGISTRY=setting`` names; empty for an automatic choice.

    Raises ``ConfigError`` for a name that no reader has.
    """
    kind, _, name = setting.partition(":")
    known = [reader.name for reader in READERS]
    if kind != AUTOMATIC or (name not in known and setting != AUTOMATIC):
        expected = ", ".join([AUTOMATIC, *(f"{AUTOMATIC}:{one}" for one in known)])
        raise ConfigError(f"registry (MESH_REGISTRY) must be a file or one of {expected}, not {setting!r}")
    return name


def choose(chain: Chain, name: str) -> Reader:
    """The reader of that name, or if the name is empty, the first one that suits the chain.

    Raises ``ChainError`` if the chain does not offer what it needs.
    """
    suitable = [reader for reader in READERS if reader.suits(chain)]
    for reader in suitable:
        if name in ("", reader.name):
            return reader
    offered = ", ".join(f"{reader.needs} ({AUTOMATIC}:{reader.name})" for reader in suitable) or "nothing"
    needed = " or ".join(reader.needs for reader in READERS if name in ("", reader.name))
    raise ChainError(f"the chain has no {needed} to read validators from: of what zmesh can read, it offers {offered}")


def read_all(reader: Reader, chain: Chain) -> list[Found]:
    """All accounts that the reader finds. Raises ``ChainError``, also for too many and for an account that appears
    twice."""
    found = list(islice(reader.read(chain), MAX_ACCOUNTS + 1))
    if len(found) > MAX_ACCOUNTS:
        raise ChainError(f"the chain names more than {MAX_ACCOUNTS} accounts: a set of validators must not be larger")
    refuse_twice([one.id for one in found])
    return found
