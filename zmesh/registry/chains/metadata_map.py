"""A chain that also knows where its validators are: a map ``Staking.ValidatorMetadata`` on top of the session's set."""

from __future__ import annotations

from collections.abc import Iterable

from zmesh.core.errors import ConfigError
from zmesh.core.types import Endpoint
from zmesh.multiaddr import parse_endpoint
from zmesh.registry.chains.port import Chain, Found, account_id, field, stake
from zmesh.registry.chains.session import SessionReader


class MetadataMapReader:
    """``{network_address, public_key, stake}`` by account. The key is not used: a delegation has to prove it."""

    name = "metadata"
    needs = "Staking.ValidatorMetadata"

    def suits(self, chain: Chain) -> bool:
        """A map of that name with addresses in it."""
        return {"network_address", "stake"} <= chain.fields("Staking", "ValidatorMetadata")

    def read(self, chain: Chain) -> Iterable[Found]:
        """The session's validators with what the map adds; the whole map if there are no sessions."""
        known = {account_id(account): value for account, value in chain.entries("Staking", "ValidatorMetadata")}
        session = SessionReader()
        everybody = session.read(chain) if session.suits(chain) else [Found(account) for account in known]
        for one in everybody:
            value = known.get(one.id)
            yield one if value is None else one._replace(stake=stake(field(value, "stake")), endpoints=_where(value))


def _where(value: object) -> tuple[Endpoint, ...]:
    """Each validator writes its own address, and a bad one must not harm the others: it counts as none."""
    text = field(value, "network_address")
    try:
        return (parse_endpoint(text.rstrip("\0")),) if isinstance(text, str) else ()
    except ConfigError:
        return ()
