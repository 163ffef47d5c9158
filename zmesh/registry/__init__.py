"""Who is a validator: the port, which an application may stand behind too, and what stands behind it.

A registry of one's own is an object with the methods of ``Registry``, handed to ``MeshNetworkClient(registry=...)``;
``port.py`` says what it promises.
"""

from zmesh.registry.port import Account, OnChange, Registry, RegistryStatus, ValidatorSet

__all__ = ["Account", "OnChange", "Registry", "RegistryStatus", "ValidatorSet"]
