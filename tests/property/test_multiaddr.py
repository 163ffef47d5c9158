"""Addresses under arbitrary text: a canonical round trip, or one declared error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.errors import ConfigError
from zmesh.core.types import Endpoint
from zmesh.multiaddr import parse_endpoint, parse_host_port, parse_multiaddr, to_multiaddr

LABELS = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True)
HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.lists(LABELS, min_size=1, max_size=5).map(".".join),
)
ENDPOINTS = st.builds(Endpoint, HOSTS, st.integers(1, 65535))
NEARLY = st.lists(
    st.sampled_from(["/", "ip4", "ip6", "dns", "tcp", "1.2.3.4", "::1", ":", "9090", "[", "]", "%", "\x00", "x"]),
    max_size=9,
).map("".join)


@given(ENDPOINTS)
def test_every_endpoint_survives_being_written_and_read(endpoint: Endpoint) -> None:
    assert parse_multiaddr(to_multiaddr(endpoint)) == endpoint
    assert parse_host_port(str(endpoint)) == endpoint
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize("parse", [parse_multiaddr, parse_host_port, parse_endpoint])
@given(text=st.one_of(st.text(), NEARLY))
def test_arbitrary_text_is_an_endpoint_or_one_sentence(parse: Callable[[str], Endpoint], text: str) -> None:
    try:
        endpoint = parse(text)
    except ConfigError as refusal:
        assert str(refusal).startswith("address ")
        assert "\n" not in str(refusal)
    else:
        assert parse_multiaddr(to_multiaddr(endpoint)) == endpoint
