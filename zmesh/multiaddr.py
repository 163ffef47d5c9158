"""Addresses as people write them: multiaddrs and ``host:port``, to and from ``Endpoint``.

Rules
 1. One grammar, read strictly: ``/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT`` and nothing before, after or between.
 2. Addresses are made canonical (IPv6 compressed as in RFC 5952, names in lower case), so that equal addresses are
    equal endpoints.
 3. Nothing is resolved here. ``dns4`` and ``dns6`` are read as names: the resolver chooses the family.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address

from zmesh.core.bounds import MAX_HOST
from zmesh.core.errors import ConfigError
from zmesh.core.sentence import shown
from zmesh.core.types import Endpoint

FORM = "/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT, such as /ip4/192.0.2.1/tcp/9090"
MAX_TEXT = 300
"""Characters of an address: the longest host and the words around it."""

_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


def is_address(host: str) -> bool:
    """Whether ``host`` is an IP literal, which needs no resolver."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def parse_multiaddr(text: str) -> Endpoint:
    """The endpoint that a multiaddr names.

    Raises ``ConfigError`` with one sentence that repeats the address and says what is wrong with it.
    """
    parts = text.split("/")
    if len(text) > MAX_TEXT or len(parts) != 5 or parts[0] or parts[3] != "tcp":
        raise ConfigError(f"address {shown(text)} is not a multiaddr: it must be {FORM}")
    _, family, host, _, port = parts
    if family not in _HOSTS:
        raise ConfigError(f"address {shown(text)} starts with {shown(family)}: it must be {FORM}")
    return Endpoint(_HOSTS[family](host, text), _port(port, text))


def to_multiaddr(endpoint: Endpoint) -> str:
    """The multiaddr of ``endpoint``: ``ip4``, ``ip6`` or ``dns``, depending on its host.

    Raises ``ConfigError`` if the host or the port is invalid.
    """
    host, port = endpoint
    family = "ip6" if ":" in host else "ip4" if _looks_like_ip4(host.lower()) else "dns"
    canonical = parse_multiaddr(f"/{family}/{host}/tcp/{port}")
    return f"/{family}/{canonical.host}/tcp/{canonical.port}"


def parse_host_port(text: str) -> Endpoint:
    """The endpoint that ``HOST:PORT`` or ``[IPV6]:PORT`` names.

    Raises ``ConfigError`` with one sentence that repeats the address and says what is wrong with it.
    """
    expected = "it must be HOST:PORT or [IPV6]:PORT, such as mesh.example.org:9090"
    if "://" in text:
        raise ConfigError(f"address {shown(text)} is a URL: {expected}")
    host, colon, port = text.rpartition(":") if len(text) <= MAX_TEXT else ("", "", "")
    if not (colon and host and port):
        raise ConfigError(f"address {shown(text)} is not host and port: {expected}")
    if host.startswith("[") and host.endswith("]"):
        return Endpoint(_ip6(host[1:-1], text), _port(port, text))
    if ":" in host:
        raise ConfigError(f"address {shown(text)} has an IPv6 host without brackets: {expected}")
    read = _ip4 if _looks_like_ip4(host.lower()) else _name
    return Endpoint(read(host, text), _port(port, text))


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint that either form names: a multiaddr if it starts with a slash, else ``HOST:PORT``.

    Raises ``ConfigError``.
    """
    return parse_multiaddr(text) if text.startswith("/") else parse_host_port(text)


def _looks_like_ip4(host: str) -> bool:
    """A name's last label is never a number (RFC 3696, section 2), so a number there means an address."""
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _ip4(host: str, text: str) -> str:
    try:
        return str(IPv4Address(host))
    except AddressValueError:
        raise ConfigError(f"address {shown(text)} must have an IPv4 host such as 192.0.2.1") from None


def _ip6(host: str, text: str) -> str:
    try:
        address = IPv6Address(host)
    except AddressValueError:
        address = None
    # A zone (fe80::1%eth0) means something on one machine only, so such an address must not be passed on.
    if address is None or address.scope_id is not None:
        raise ConfigError(f"address {shown(text)} must have an IPv6 host such as 2001:db8::1, without a zone")
    return str(address)


def _name(host: str, text: str) -> str:
    """A host name as in RFC 1123, with underscores allowed because container networks use them."""
    lower = host.lower()
    labels = lower.split(".")
    whole = len(lower) <= MAX_HOST and all(_LABEL.fullmatch(label) for label in labels)
    if not whole or _looks_like_ip4(lower):
        raise ConfigError(f"address {shown(text)} must have a host name such as mesh.example.org")
    return lower


def _port(port: str, text: str) -> int:
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ConfigError(f"address {shown(text)} must have a port from 1 to 65535, not {shown(port)}")
    return int(port)


_HOSTS = {"ip4": _ip4, "ip6": _ip6, "dns": _name, "dns4": _name, "dns6": _name}
