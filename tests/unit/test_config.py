"""Settings: where a value comes from, and how a bad one is refused."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from tests.unit.delegation_support import NETWORK, delegation, signer
from zmesh.config import Settings, suspicious_variables, variable_of
from zmesh.core.bounds import Bounds
from zmesh.core.errors import ConfigError
from zmesh.core.types import Endpoint
from zmesh.identity import Identity, create_key_file
from zmesh.transport import MAX_LINKS

VARIABLES = {
    "MESH_LISTEN_PORT": ("9191", "listen_port", 9191),
    "MESH_PEER_ID": ("validator_belizecity_01", "peer_id", "validator_belizecity_01"),
    "BLOCKCHAIN_RPC": ("ws://blockchain:9944", "blockchain_rpc", "ws://blockchain:9944"),
    "MESH_HEARTBEAT_INTERVAL": ("30", "heartbeat_interval", 30.0),
    "MESH_PEER_TIMEOUT": ("150", "peer_timeout", 150.0),
    "MESH_MAX_PEERS": ("50", "max_peers", 50),
    "MESH_GOSSIP_FANOUT": ("3", "gossip_fanout", 3),
}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable_of(name), raising=False)


def refusal(**explicit: Any) -> str:
    """The one sentence with which these settings are refused, checked for what holds of all of them."""
    with pytest.raises(ConfigError) as caught:
        Settings(**{"peer_id": "me", **explicit})
    printed = "".join(traceback.format_exception(caught.value))
    assert "ValidationError" not in printed
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_defaults_are_those_that_operators_rely_on() -> None:
    settings = Settings(peer_id="me")
    assert settings.listen_port == 9090
    assert settings.blockchain_rpc == "ws://localhost:9944"
    assert settings.heartbeat_interval == 60
    assert settings.max_peers == 100
    assert settings.gossip_fanout == 5
    assert settings.bounds() == Bounds()
    assert (settings.bounds().alive, settings.bounds().forget) == (300, 600)


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_argument_beats_the_environment_which_beats_the_default(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, field, value = VARIABLES[variable]
    monkeypatch.setenv("MESH_PEER_ID", "default")
    default = getattr(Settings(), field)
    assert default != value
    monkeypatch.setenv(variable, text)
    assert variable_of(field) == variable
    assert getattr(Settings(), field) == value
    assert getattr(Settings(**{field: default}), field) == default
    assert getattr(Settings(**{field: None}), field) == value
    monkeypatch.setenv(variable, "")
    assert variable == "MESH_PEER_ID" or getattr(Settings(), field) == default


@pytest.mark.parametrize(
    "field, value",
    [
        ("listen_port", -1),
        ("listen_port", 65536),
        ("listen_port", "http"),
        ("router_port", 1.5),
        ("heartbeat_interval", -5),
        ("heartbeat_interval", 0),
        ("heartbeat_interval", float("nan")),
        ("peer_timeout", float("inf")),
        ("peer_timeout", "soon"),
        ("max_peers", 0),
        ("max_peers", MAX_LINKS + 1),
        ("gossip_fanout", 0),
        ("author_rate", 0),
        ("link_burst", 0.5),
        ("handler_queue", 0),
        ("verify_threads", -1),
        ("stop_timeout", 1e6),
        ("log_level", "TRACE"),
        ("log_format", "xml"),
        ("registry", 3),
        ("peer_id", ""),
        ("peer_id", 5),
        ("network", ""),
    ],
)
@pytest.mark.parametrize("through", ["argument", "environment"])
def test_a_bad_value_is_refused_by_field_variable_value_and_what_it_must_be(
    field: str, value: object, through: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = variable_of(field)
    if through == "argument":
        sentence, given = refusal(**{field: value}), repr(value)
    elif value == "" or field in {"peer_id", "registry"}:
        return  # as a variable that is empty and so not given, or text and so valid
    else:
        monkeypatch.setenv(variable, str(value))
        sentence, given = refusal(), repr(str(value))
    must_be = Settings.model_fields[field].json_schema_extra["must_be"]  # type: ignore[index]
    assert sentence == f"{field} ({variable}) must be {must_be}, not {given}"


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("peer_id", "ab" * 32, f": '{'ab' * 32}' looks like a public key and must be a name of your own choice"),
        ("peer_id", " me", ": ' me' must consist of printable characters, without blanks around them"),
        ("peer_id", "m\ne", r": 'm\ne' must consist of printable characters, without blanks around them"),
        ("peer_id", "é" * 65, f": '{'é' * 65}' has 130 bytes and must have at most 128"),
        (
            "network",
            "n" * 65,
            f" must be a printable name of 1 to 64 bytes, without blanks around it, not '{'n' * 65}'",
        ),
        (
            "listen_host",
            "localhost",
            " must be the IP address of an interface, such as 127.0.0.1, or 0.0.0.0 for all of them, not 'localhost'",
        ),
        ("genesis", "0x12", " must be the 64 hexadecimal digits of the chain's genesis hash, not '0x12'"),
        (
            "registry",
            "substrate:",
            " must be the path of a TOML file, substrate, or substrate:NAME, such as substrate:session, "
            "not 'substrate:'",
        ),
        (
            "advertise",
            "example.org",
            ": address 'example.org' is not host and port: it must be HOST:PORT or [IPV6]:PORT, such as "
            "mesh.example.org:9090",
        ),
        (
            "advertise",
            "/ip4/1.2.3.4/udp/1",
            ": address '/ip4/1.2.3.4/udp/1' is not a multiaddr: it must be /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT, "
            "such as /ip4/192.0.2.1/tcp/9090",
        ),
    ],
)
def test_a_value_with_a_grammar_is_refused_in_its_own_words(field: str, value: str, said: str) -> None:
    assert refusal(**{field: value}) == f"{field} ({variable_of(field)}){said}"


def test_a_chain_url_of_another_type_is_refused_with_what_it_must_be() -> None:
    said = "blockchain_rpc (BLOCKCHAIN_RPC) must be a URL such as ws://localhost:9944, not 5"
    assert refusal(blockchain_rpc=5) == said


def test_a_missing_name_is_asked_for() -> None:
    with pytest.raises(
        ConfigError, match=r"^peer_id \(MESH_PEER_ID\) is missing: it must be a name of your own choice"
    ):
        Settings()


def test_an_unknown_argument_is_answered_with_the_nearest_field() -> None:
    assert refusal(lisen_port=1) == "lisen_port is not a setting: did you mean listen_port?"
    assert refusal(zzz=1) == "zzz is not a setting: see zmesh.config.Settings for the list"


def test_several_bad_values_are_counted() -> None:
    assert refusal(max_peers=0, gossip_fanout=0, listen_port=-1).endswith("(and 2 more)")


def test_fields_that_contradict_each_other_are_refused_by_both_names() -> None:
    assert refusal(peer_timeout=10) == (
        "peer_timeout (MESH_PEER_TIMEOUT) is 10 s and must be several times heartbeat_interval"
        " (MESH_HEARTBEAT_INTERVAL), which is 60 s"
    )
    assert refusal(peer_forget=200) == (
        "peer_forget (MESH_PEER_FORGET) is 200 s and must not be shorter than peer_timeout (MESH_PEER_TIMEOUT),"
        " which is 300 s"
    )


def test_a_port_that_kubernetes_set_is_explained() -> None:
    assert "enableServiceLinks: false" in refusal(gossip_port="tcp://10.0.0.1:9090")


SECRET = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f6"


def test_a_private_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SECRET not in repr(Settings(peer_id="me", private_key=SECRET + "0"))
    assert SECRET not in str(Settings(peer_id="me", private_key=SECRET + "0").model_dump())
    assert refusal(private_key=[SECRET]) == (
        "private_key (MESH_PRIVATE_KEY) must be 64 hexadecimal digits, 32 bytes or the path of a key file,"
        " not a value of type list"
    )
    monkeypatch.setenv("MESH_PRIVATE_KEY", SECRET)
    assert SECRET not in refusal(listen_port=-1)
    with pytest.raises(ConfigError, match=r"^private_key \(MESH_PRIVATE_KEY\): .*not shown") as caught:
        Settings(peer_id="me").identity()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["zzz", "ftp://u:hunter2@h", "ws://", "ws://u:hunter2@h:x", "ws://u:hunter2@:1"])
def test_a_password_in_the_chain_url_is_never_shown(url: str) -> None:
    sentence = refusal(blockchain_rpc=url)
    form = "each URL (not shown) must be of the form ws://HOST:PORT, such as ws://localhost:9944"
    assert sentence == f"blockchain_rpc (BLOCKCHAIN_RPC): {form}"
    assert "hunter2" not in repr(Settings(peer_id="me", blockchain_rpc="wss://u:hunter2@h:1"))


def test_the_key_comes_from_hex_bytes_file_or_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "node.key"
    public = create_key_file(path).public
    assert Settings(peer_id="me", private_key=path).identity().public == public
    assert Settings(peer_id="me", private_key=bytes(32)).identity().public == Identity(bytes(32)).public
    monkeypatch.setenv("MESH_PRIVATE_KEY", str(path))
    assert Settings(peer_id="me").identity().public == public
    monkeypatch.delenv("MESH_PRIVATE_KEY")
    assert Settings(peer_id="me").identity().public != Settings(peer_id="me").identity().public


def test_settings_reach_the_engine_as_bounds() -> None:
    bounds = Settings(
        peer_id="me", max_peers=10, gossip_fanout=3, peer_timeout=900, author_rate=7, link_burst=8, direct_rate=9
    ).bounds()
    assert (bounds.max_links, bounds.sparse_links, bounds.fanout) == (10, 10, 3)
    assert (bounds.alive, bounds.forget) == (900, 1800)
    assert (bounds.author_rate, bounds.link_burst, bounds.direct_rate) == (7, 8, 9)
    assert Settings(peer_id="me", peer_forget=400).bounds().forget == 400


def test_as_many_peers_are_allowed_as_a_transport_holds() -> None:
    assert Settings(peer_id="me", max_peers=MAX_LINKS).bounds().max_links == MAX_LINKS


def test_places_are_read_once_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/op")
    settings = Settings(peer_id="me", registry="~/mesh.toml", state_dir="~/state", advertise="/dns/A.org/tcp/1")
    assert settings.registry == Path("/home/op/mesh.toml")
    assert settings.state_dir == Path("/home/op/state")
    assert settings.advertised() == Endpoint("a.org", 1)
    assert Settings(peer_id="me").advertised() is None
    assert Settings(peer_id="me", log_level="debug").log_level == "DEBUG"


def test_a_mistyped_variable_is_noticed_and_those_of_kubernetes_are_not() -> None:
    environ = dict.fromkeys(["MESH_GOSIP_FANOUT", "MESH_PORT", "MESH_SERVICE_PORT", "MESH_PORT_9090_TCP", "HOME"], "1")
    environ.update(dict.fromkeys(map(variable_of, Settings.model_fields), "1"))
    assert suspicious_variables(environ) == [
        "MESH_GOSIP_FANOUT is set but is not a setting: did you mean MESH_GOSSIP_FANOUT?"
    ]


# ------------------------------------------------------------ where to begin


def test_seeds_come_in_every_form_that_people_write() -> None:
    right = (Endpoint("192.0.2.1", 9090), Endpoint("mesh.example.org", 9091), Endpoint("2001:db8::1", 9090))
    text = "/ip4/192.0.2.1/tcp/9090, Mesh.Example.org:9091  [2001:db8:0::1]:9090,192.0.2.1:9090"
    assert Settings(peer_id="me", bootstrap=text).seeds() == right
    assert Settings(peer_id="me", bootstrap=["192.0.2.1:9090", *map(str, right[1:])]).seeds() == right
    assert Settings(peer_id="me").seeds() == ()


@pytest.mark.parametrize(
    "bootstrap, said",
    [
        ("mesh.example.org", "address 'mesh.example.org' is not host and port: it must be HOST:PORT or"),
        ("192.0.2.1:9090;192.0.2.2:9090", "address"),
        ("192.0.2.1:0", "must have a port from 1 to 65535, not '0'"),
        ("http://192.0.2.1:9090", "address 'http://192.0.2.1:9090' is a URL: it must be HOST:PORT or"),
        (",".join(f"192.0.2.1:{port}" for port in range(1, 66)), "65 addresses are too many: there must be at most 64"),
        (7, "bootstrap (MESH_BOOTSTRAP) must be addresses such as mesh.example.org:9090 or"),
    ],
)
def test_an_invalid_seed_is_refused(bootstrap: Any, said: str) -> None:
    sentence = refusal(bootstrap=bootstrap)
    assert sentence.startswith("bootstrap (MESH_BOOTSTRAP)")
    assert said in sentence


def test_who_gets_in_is_the_registrys_choice_unless_the_mesh_is_open() -> None:
    assert Settings(peer_id="me").admission == "registry"
    assert Settings(peer_id="me", admission="OPEN").admission == "open"
    assert refusal(admission="all") == "admission (MESH_ADMISSION) must be registry or open, not 'all'"


# ---------------------------------------------------------------- delegation


def test_a_delegation_is_taken_from_a_file_or_from_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Identity.from_seed(bytes([101]) * 32)
    made = delegation(signer(), node)
    path = tmp_path / "node.delegation"
    path.write_text(made.encoded.hex() + "\n")
    for given in (path, str(path), made.encoded.hex(), f"0x{made.encoded.hex()}"):
        assert Settings(peer_id="me", network=NETWORK, delegation=given).delegated(node.public) == made
    monkeypatch.setenv("MESH_DELEGATION", str(path))
    assert Settings(peer_id="me", network=NETWORK).delegated(node.public) == made
    monkeypatch.setenv("MESH_DELEGATION", "")
    assert Settings(peer_id="me").delegated(node.public) is None


def test_a_delegation_that_cannot_be_this_nodes_is_refused_in_one_sentence(tmp_path: Path) -> None:
    node, other = (Identity.from_seed(bytes([number]) * 32) for number in (101, 102))
    made = delegation(signer(), node)
    empty = tmp_path / "empty"
    empty.write_text("")
    forged = bytearray(made.encoded)
    forged[-1] ^= 1
    for given, key, network, said in (
        (
            made.encoded.hex(),
            other.public,
            NETWORK,
            f"is for the key {node.public.hex()}, not this node's {other.public.hex()}: sign another",
        ),
        (made.encoded.hex(), node.public, "zmesh", "is for the mesh 'belize' and must be for 'zmesh'"),
        (forged.hex(), node.public, NETWORK, "has an invalid signature: make a new one with `zmesh key delegate`"),
        ("00" * 70, node.public, NETWORK, "is not a delegation"),
        (str(empty), node.public, NETWORK, "must hold the hexadecimal digits that `zmesh key delegate` writes"),
        (str(tmp_path / "none"), node.public, NETWORK, "cannot be read: No such file"),
    ):
        with pytest.raises(ConfigError) as refused:
            Settings(peer_id="me", network=network, delegation=given).delegated(key)
        assert str(refused.value).startswith("delegation (MESH_DELEGATION)")
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)
