"""Addresses: what reads, what it becomes, and what is refused in one sentence."""

from __future__ import annotations

import pytest

from zmesh.core.errors import ConfigError
from zmesh.core.types import Endpoint
from zmesh.multiaddr import parse_endpoint, parse_host_port, parse_multiaddr, to_multiaddr


@pytest.mark.parametrize(
    "text, endpoint",
    [
        ("/ip4/192.168.1.100/tcp/9090", Endpoint("192.168.1.100", 9090)),
        ("/ip6/2001:DB8:0:0:0:0:0:1/tcp/1", Endpoint("2001:db8::1", 1)),
        ("/dns/Mesh.Example.ORG/tcp/65535", Endpoint("mesh.example.org", 65535)),
        ("/dns4/validator_001/tcp/9090", Endpoint("validator_001", 9090)),
        ("/dns6/a.b-c.d1/tcp/80", Endpoint("a.b-c.d1", 80)),
    ],
)
def test_a_multiaddr_reads_as_its_canonical_endpoint(text: str, endpoint: Endpoint) -> None:
    assert parse_multiaddr(text) == endpoint
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "192.168.1.100:9090",
        "/ip4/192.168.1.100/udp/9090",
        "/ip4/192.168.1.100/tcp/9090/",
        "/ip4/192.168.1.100/tcp/9090/p2p/Qm",
        " /ip4/192.168.1.100/tcp/9090",
        "/ip4/192.168.1.100/tcp/9090\n",
        "/ip4/192.168.1/tcp/9090",
        "/ip4/192.168.001.1/tcp/9090",
        "/ip4/256.1.1.1/tcp/9090",
        "/ip4/example.org/tcp/9090",
        "/ip4/::1/tcp/9090",
        "/ip6/127.0.0.1/tcp/9090",
        "/ip6/fe80::1%eth0/tcp/9090",
        "/ip6/[::1]/tcp/9090",
        "/dns/127.0.0.1/tcp/9090",
        "/dns/0x7f000001/tcp/9090",
        "/dns/2130706433/tcp/9090",
        "/dns//tcp/9090",
        "/dns/-a/tcp/9090",
        "/dns/a..b/tcp/9090",
        "/dns/a.b./tcp/9090",
        "/dns/exämple.org/tcp/9090",
        f"/dns/{'a' * 64}/tcp/9090",
        f"/dns/{'.'.join(['a' * 60] * 5)}/tcp/9090",
        "/DNS/a/tcp/9090",
        "/ip4/1.2.3.4/tcp/0",
        "/ip4/1.2.3.4/tcp/65536",
        "/ip4/1.2.3.4/tcp/-1",
        "/ip4/1.2.3.4/tcp/09090",
        "/ip4/1.2.3.4/tcp/+9090",
        "/ip4/1.2.3.4/tcp/٩٠٩٠",
        "/ip4/1.2.3.4/tcp/",
        "/unix/run/tcp/9090",
        "/ip4/1.2.3.4/tcp/9090" + "0" * 10_000,
    ],
)
def test_anything_else_is_refused_in_one_short_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^address .+ must (be|have) .+$") as refusal:
        parse_multiaddr(text)
    sentence = str(refusal.value)
    assert len(sentence) < 300
    assert "\n" not in sentence
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


@pytest.mark.parametrize(
    "text, endpoint",
    [
        ("127.0.0.1:9090", Endpoint("127.0.0.1", 9090)),
        ("[::1]:9090", Endpoint("::1", 9090)),
        ("Localhost:1", Endpoint("localhost", 1)),
    ],
)
def test_host_and_port_read_as_an_endpoint_and_back(text: str, endpoint: Endpoint) -> None:
    assert parse_host_port(text) == endpoint
    assert parse_endpoint(text) == endpoint
    assert parse_host_port(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a",
        "a:",
        ":1",
        "::1:9090",
        "[::1]",
        "[::1]9090",
        "[1.2.3.4]:1",
        "a:b",
        "a b:1",
        "a:70000",
        "a" * 400,
    ],
)
def test_a_malformed_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^address .+ must (be|have) .+$"):
        parse_host_port(text)


@pytest.mark.parametrize(
    "endpoint, text",
    [
        (Endpoint("1.2.3.4", 9090), "/ip4/1.2.3.4/tcp/9090"),
        (Endpoint("::1", 9090), "/ip6/::1/tcp/9090"),
        (Endpoint("Example.org", 9090), "/dns/example.org/tcp/9090"),
    ],
)
def test_an_endpoint_is_written_by_what_its_host_is(endpoint: Endpoint, text: str) -> None:
    assert to_multiaddr(endpoint) == text


@pytest.mark.parametrize("endpoint", [Endpoint("", 1), Endpoint("a/b", 1), Endpoint("a", 0), Endpoint("1.2.3", 1)])
def test_an_endpoint_that_cannot_be_dialled_is_not_written(endpoint: Endpoint) -> None:
    with pytest.raises(ConfigError):
        to_multiaddr(endpoint)
