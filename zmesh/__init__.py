"""Signed, encrypted, brokerless messaging for blockchain validators on ZeroMQ.

Start with ``MeshNetworkClient``. Names are loaded when they are first used: importing zmesh is quick, and a tool that
only reads a message does not load sockets.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zmesh.version import VERSION as __version__  # noqa: N811 - the name by which Python knows it

if TYPE_CHECKING:
    from zmesh.client import MeshNetworkClient
    from zmesh.config import Settings
    from zmesh.core.errors import (
        ConfigError,
        NotPledgedError,
        NotRunningError,
        PayloadError,
        PayloadTooLargeError,
        SelfHarmError,
        ZmeshError,
    )
    from zmesh.core.types import MessageType, SendResult
    from zmesh.dispatch import MessageHandler
    from zmesh.identity import Identity
    from zmesh.messages import FLRoundAnnouncement, MeshMessage, PeerInfo

_HOMES = {
    "ConfigError": "zmesh.core.errors",
    "FLRoundAnnouncement": "zmesh.messages",
    "Identity": "zmesh.identity",
    "MeshMessage": "zmesh.messages",
    "MeshNetworkClient": "zmesh.client",
    "MessageHandler": "zmesh.dispatch",
    "MessageType": "zmesh.core.types",
    "NotPledgedError": "zmesh.core.errors",
    "NotRunningError": "zmesh.core.errors",
    "PayloadError": "zmesh.core.errors",
    "PayloadTooLargeError": "zmesh.core.errors",
    "PeerInfo": "zmesh.messages",
    "SelfHarmError": "zmesh.core.errors",
    "SendResult": "zmesh.core.types",
    "Settings": "zmesh.config",
    "ZmeshError": "zmesh.core.errors",
}

__all__ = [
    "ConfigError",
    "FLRoundAnnouncement",
    "Identity",
    "MeshMessage",
    "MeshNetworkClient",
    "MessageHandler",
    "MessageType",
    "NotPledgedError",
    "NotRunningError",
    "PayloadError",
    "PayloadTooLargeError",
    "PeerInfo",
    "SelfHarmError",
    "SendResult",
    "Settings",
    "ZmeshError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zmesh' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
