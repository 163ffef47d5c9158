"""Who is a validator: the registry port, which an application may implement, too, and zmesh's own implementations.

An application's own registry is an object with the methods of ``Registry``, passed as
``MeshNetworkClient(registry=...)``; ``port.py`` says what it must promise.
"""

from zmesh.registry.port import Account, OnChange, Registry, RegistryStatus, ValidatorSet

__all__ = ["Account", "OnChange", "Registry", "RegistryStatus", "ValidatorSet"]
