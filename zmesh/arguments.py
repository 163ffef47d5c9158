"""The settings that ``MeshNetworkClient`` takes as keyword arguments, for type checkers.

Rules
 1. The same names and types as ``zmesh.config.Settings``, without those that the client names itself. They are spelt
    out here because that module imports pydantic, and a type checker does not see through the ``**explicit`` of its
    constructor.
 2. None means "not given", as everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypedDict


class SettingsArguments(TypedDict, total=False):
    """See ``docs/settings.md`` for what each one means."""

    delegation: str | Path | None
    network: str | None
    listen_host: str | None
    router_port: int | None
    gossip_port: int | None
    advertise: str | None
    genesis: str | None
    admission: Literal["registry", "open"] | None
    bootstrap: str | list[str] | tuple[str, ...] | None
    max_peers: int | None
    gossip_fanout: int | None
    heartbeat_interval: float | None
    peer_timeout: float | None
    peer_forget: float | None
    author_rate: float | None
    author_burst: float | None
    link_rate: float | None
    link_burst: float | None
    direct_rate: float | None
    direct_burst: float | None
    handler_queue: int | None
    handler_concurrency: int | None
    handler_timeout: float | None
    verify_threads: int | None
    stop_timeout: float | None
    state_dir: str | Path | None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None
    log_format: Literal["auto", "console", "json"] | None
