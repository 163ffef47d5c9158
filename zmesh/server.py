"""The front door of one node, HTTP and ZMTP on one port, and the address under which others reach it.

Rules
 1. HTTP carries only what anyone may read (health, metrics, the node's own signed record) and may leave (a signed
    record of its own, if its key belongs).
 2. aiohttp is imported when a node starts, not when zmesh is.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zmesh.core.types import Endpoint
from zmesh.http import Answers, make_app, make_runner
from zmesh.http_limits import HttpLimits

if TYPE_CHECKING:
    from aiohttp.web import ServerRunner

    from zmesh.config import Settings
    from zmesh.transports.front_door import FrontDoor


class Server:
    """Listens on ``settings.listen_port``, and knows where others reach it."""

    def __init__(self, settings: Settings, answers: Answers) -> None:
        self._settings = settings
        self._answers = answers
        self._limits = HttpLimits()
        self._source: str | None = None
        self._is_local_refused = False
        self._runner: ServerRunner | None = None
        self._door: FrontDoor | None = None

    @property
    def port(self) -> int:
        """The bound port; before ``start``, the configured one."""
        return self._settings.listen_port if self._door is None else self._door.port

    @property
    def counters(self) -> Mapping[str, int]:
        """The counters of the front door and of its HTTP requests."""
        return {} if self._door is None else {**self._door.counters, **self._limits.counters}

    async def start(self, router: Endpoint) -> None:
        """Open the door; ``router`` is where the transport listens. Raises ``ConfigError`` if the port is taken."""
        from zmesh.transports.front_door import FrontDoor

        runner = make_runner(make_app(self._answers, self._limits), self._limits)
        await runner.setup()
        self._runner = runner
        assert runner.server is not None  # made by setup()
        host = self._settings.listen_host
        door = FrontDoor(host, self._settings.listen_port, router, runner.server)
        await door.start()
        self._door = door

    async def stop(self) -> None:
        """Close the door and everything that goes through it."""
        if self._door is not None:
            await self._door.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        self._door = self._runner = None

    def advertised(self) -> tuple[Endpoint, ...]:
        """Where others reach this door, as far as this node can tell.

        A node that listens on every interface cannot tell: then ``advertise`` says it, or the registry, or the route to
        the seeds.
        """
        told = self._settings.advertised()
        if told is not None:
            return (told,)
        host = self._settings.listen_host
        if not ipaddress.ip_address(host).is_unspecified:
            return (Endpoint(host, self.port),)
        return () if self._source is None else (Endpoint(self._source, self.port),)

    def toward(self, place: Endpoint) -> bool:
        """Find out from which of its addresses this node reaches ``place``, an IP literal.

        Returns whether that changed what is advertised. The address is right within one network of machines or
        containers; behind NAT it leads nowhere, and ``advertise`` is needed.
        """
        before = self.advertised()
        source = _source_toward(place, self._settings.listen_host)
        if source is not None and not (self._is_local_refused and ipaddress.ip_address(source).is_loopback):
            self._source = source
        return self.advertised() != before

    def withdraw_local(self) -> bool:
        """A seed refuses addresses that lead only to one machine: advertise none that ``toward`` found.

        Returns whether that changed what is advertised.
        """
        before, self._is_local_refused = self.advertised(), True
        if self._source is not None and ipaddress.ip_address(self._source).is_loopback:
            self._source = None
        return self.advertised() != before


def _source_toward(place: Endpoint, listen_host: str) -> str | None:
    """The address that the kernel would send from; None if there is no route, or if this node does not listen on its
    family."""
    version = ipaddress.ip_address(listen_host).version
    try:
        if ipaddress.ip_address(place.host).version != version:
            return None
        # Connecting a datagram socket sends nothing: it asks the routing table.
        with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(tuple(place))
            source = str(probe.getsockname()[0])
    except (OSError, ValueError):
        return None
    return None if ipaddress.ip_address(source).is_unspecified else source
