"""Who is a validator: the registry port, which an application may implement, too, and zmesh's own implementations.

An application's own registry is an object with the methods of ``Registry``, passed as
``MeshNetworkClient(registry=...)``; the docstring of ``zmesh.registry.port`` says what it must promise. It gives a
``ValidatorSet``: a ``Roster`` of ``Member`` values where it knows mesh keys, and an ``Account`` each where it does not.
"""

from zmesh.core.types import EMPTY_ROSTER, Endpoint, Member, PeerKey, Roster
from zmesh.registry.port import Account, OnChange, Registry, RegistryStatus, ValidatorSet

__all__ = [
    "EMPTY_ROSTER",
    "Account",
    "Endpoint",
    "Member",
    "OnChange",
    "PeerKey",
    "Registry",
    "RegistryStatus",
    "Roster",
    "ValidatorSet",
]
