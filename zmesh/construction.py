"""What a client is made from: its arguments, checked and turned into settings and a registry.

Rules
 1. What only some clients need is imported when it is needed: settings bring pydantic, and a chain its readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmesh.core.errors import ConfigError

if TYPE_CHECKING:
    from zmesh.config import Settings
    from zmesh.registry.port import Registry

REGISTRY_PORT = ("start", "read", "stop", "status")
"""The methods of ``zmesh.registry.Registry``."""


def settings_of(made: Settings | None, given: Mapping[str, Any]) -> Settings:
    """The ready-made settings, or new ones from the arguments and the environment. Raises ``ConfigError``."""
    from zmesh.config import Settings  # its import takes longer than all others together

    if made is None:
        return Settings(**given)
    if not isinstance(made, Settings):
        raise ConfigError(f"settings must be a zmesh.Settings, not a value of type {type(made).__name__}")
    if given:
        raise ConfigError(f"settings and {', '.join(given)} must not both be given: put everything into Settings")
    return made


def own_registry(registry: Registry | str | Path | None) -> Registry | None:
    """The argument, if it is the application's own registry and not the name of one. Raises ``ConfigError``."""
    if registry is None or isinstance(registry, str | Path):
        return None
    if not all(hasattr(registry, name) for name in REGISTRY_PORT):
        raise ConfigError(
            "registry must be a path, substrate, or an object that implements zmesh.registry.Registry, "
            f"not a value of type {type(registry).__name__}"
        )
    return registry


def named_registry(settings: Settings, genesis: bytes) -> Registry | None:
    """The registry that the settings name, if any. ``genesis``: 32 bytes if the chain is known, else empty."""
    file, chain = settings.registry_file(), settings.registry_chain()
    if file is not None:
        from zmesh.registry.static import StaticRegistry

        return StaticRegistry(file)
    if chain is not None:
        from zmesh.registry.chain import ChainRegistry

        return ChainRegistry(settings.rpc_urls(), chain, settings.state_dir, genesis=genesis)
    return None
