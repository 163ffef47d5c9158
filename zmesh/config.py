"""Every setting of a node, with its unit and the reason for its default.

Rules
 1. An explicit argument beats the environment, which beats the default. None as an argument and an empty
    variable both mean "not given". A variable is the field's name in capitals after ``MESH_``
    (``BLOCKCHAIN_RPC`` is the one exception).
 2. A bad value is refused at construction with one sentence: the field, its variable, the value, what it
    must be. A secret is never repeated, and settings do not change afterwards.
 3. Only this module imports pydantic, and only code that reads settings imports this module: pydantic takes longer to
    import than all the rest of zmesh.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Secret, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from zmesh.core.bounds import MAX_NAME, Bounds
from zmesh.core.errors import ConfigError
from zmesh.core.sentence import shown
from zmesh.core.types import Endpoint, PeerKey
from zmesh.core.wire import KEY_SIZE
from zmesh.delegation import MAX_NETWORK, Delegation, load_delegation
from zmesh.identity import Identity, load_key, unhex
from zmesh.multiaddr import parse_endpoint
from zmesh.registry.port import HASH_SIZE
from zmesh.rpc import is_rpc
from zmesh.transport import MAX_LINKS

PREFIX = "MESH_"
CHAIN = "substrate"
"""The value of ``registry`` that stands for the chain."""
MAX_RPC_URLS = 8
"""Endpoints of a chain: enough to survive the loss of any, few enough to come back to the first one soon."""
MAX_SEEDS = 64
"""Bootstrap addresses: people write them down."""

_BOUNDS = Bounds()


class _BadValueError(ValueError):
    """Raised by a validator if ``must_be`` already says everything."""


def _name(text: str) -> str:
    """A name that people can read, type and log, and that cannot pass for a public key."""
    if not text.isprintable() or text != text.strip():
        raise ConfigError(f"{shown(text)} must consist of printable characters, without blanks around them")
    if len(text.encode()) > MAX_NAME:
        raise ConfigError(f"{shown(text)} has {len(text.encode())} bytes and must have at most {MAX_NAME}")
    if unhex(text, KEY_SIZE) is not None:
        raise ConfigError(f"{shown(text)} looks like a public key and must be a name of your own choice")
    return text


def _network(text: str) -> str:
    if not text.isprintable() or text != text.strip() or len(text.encode()) > MAX_NETWORK:
        raise _BadValueError
    return text


def _interface(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise _BadValueError from None


def _rpc(text: str) -> str:
    """Websocket or HTTP addresses. They may carry passwords, so errors do not show them."""
    urls = split_list(text)
    if len(urls) > MAX_RPC_URLS:
        raise ConfigError(f"{len(urls)} URLs are too many: there must be at most {MAX_RPC_URLS}")
    if not urls or not all(map(is_rpc, urls)):
        raise ConfigError("each URL (not shown) must be of the form ws://HOST:PORT, such as ws://localhost:9944")
    return text


def split_list(text: str) -> list[str]:
    """The parts between commas and blanks."""
    return text.replace(",", " ").split()


def _genesis(text: str) -> str:
    found = unhex(text, HASH_SIZE)
    if found is None:
        raise _BadValueError
    return found.hex()


def _path(value: object) -> object:
    return os.path.expanduser(value) if isinstance(value, str | Path) else value


def _registry(value: object) -> object:
    """A file's path, or the word for the chain and, after a colon, the name of its reader."""
    if isinstance(value, str) and value.partition(":")[0] == CHAIN:
        name = value.partition(":")[2]
        if ":" in value and not name.isidentifier():
            raise _BadValueError
        return value
    return Path(os.path.expanduser(value)) if isinstance(value, str | Path) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _advertised(text: str) -> str:
    parse_endpoint(text)
    return text


def _listed(value: object) -> object:
    """A list in the form of a variable: one text with blanks between the items."""
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return " ".join(value)
    return value


def _seeds(text: str) -> str:
    """Bootstrap addresses in canonical form; ``Settings.seeds`` takes them apart."""
    found = list(dict.fromkeys(map(parse_endpoint, split_list(text))))
    if len(found) > MAX_SEEDS:
        raise ConfigError(
            f"{len(found)} addresses are too many: there must be at most {MAX_SEEDS}, and three are enough"
        )
    return " ".join(map(str, found))


def _setting(default: Any, must_be: str, **limits: Any) -> Any:
    """A field whose error says what it ``must_be``; ``limits`` are pydantic's (ge, gt, le ...)."""
    return Field(default, json_schema_extra={"must_be": must_be}, **limits)


def _port(default: int) -> Any:
    return _setting(default, "a port from 1 to 65535, or 0 for any free one", ge=0, le=65535)


def _seconds(default: float | None, example: int, most: float = 86_400) -> Any:
    must_be = f"a number of seconds above 0 and at most {most:.0f}, such as {example}"
    return _setting(default, must_be, gt=0, le=most, allow_inf_nan=False)


def _rate(default: float) -> Any:
    must_be = f"a positive number of messages per second, such as {default:.0f}"
    return _setting(default, must_be, gt=0, le=1e9, allow_inf_nan=False)


def _burst(default: float) -> Any:
    must_be = f"a number of messages, at least 1, such as {default:.0f}"
    return _setting(default, must_be, ge=1, le=1e9, allow_inf_nan=False)


def _count(default: int, least: int, most: int) -> Any:
    must_be = f"a whole number from {least} to {most}, such as {default}"
    return _setting(default, must_be, ge=least, le=most)


PathLike = Annotated[Path, BeforeValidator(_path)]


class Settings(BaseSettings):
    """What an operator decides. A field's variable is its name in capitals after ``MESH_``, except ``BLOCKCHAIN_RPC``.

    Raises ``ConfigError`` with one sentence for a missing, unknown or invalid setting.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    # ---------------------------------------------------------------- who and where

    peer_id: Annotated[str, AfterValidator(_name)] = _setting(
        ..., "a name of your own choice, such as validator_001", min_length=1
    )
    """The name of this node, unique in the mesh; at most 128 bytes."""
    private_key: Secret[str | bytes | Path] | None = _setting(
        None, "64 hexadecimal digits, 32 bytes or the path of a key file"
    )
    """Ed25519 key: 64 hex digits, 32 bytes or the path of a key file; if not given, a fresh one, unknown to others."""
    delegation: str | Path | None = _setting(
        None, "the path of a file written by `zmesh key delegate`, or the content of one"
    )
    """The account's signed statement for this node's key; needed where the registry names accounts (a chain)."""
    network: Annotated[str, AfterValidator(_network)] = _setting(
        "zmesh", f"a printable name of 1 to {MAX_NETWORK} bytes, without blanks around it", min_length=1
    )
    """Name of the mesh; messages of a mesh with another name are refused, so test and production never mix."""
    listen_host: Annotated[str, AfterValidator(_interface)] = _setting(
        "0.0.0.0",  # noqa: S104
        "the IP address of an interface, such as 127.0.0.1, or 0.0.0.0 for all of them",
    )
    """Address to bind; by default every interface, by IPv4, which containers need; ``::`` for IPv6."""
    listen_port: int = _port(9090)
    """The front door, HTTP and ZeroMQ on one port: the only port that has to be open."""
    router_port: int = _port(0)
    """Port for direct messages; 0 takes any free one, so two nodes on one machine do not collide."""
    gossip_port: int = _port(0)
    """Port of the publisher; 0 as above."""
    advertise: Annotated[str, AfterValidator(_advertised)] | None = _setting(None, "a multiaddr or HOST:PORT")
    """Where others reach the front door, if not at ``listen_host:listen_port`` (containers, NAT)."""

    # ---------------------------------------------------------------- who else

    blockchain_rpc: Annotated[str, AfterValidator(_rpc)] = Field(
        "ws://localhost:9944",
        validation_alias="BLOCKCHAIN_RPC",
        repr=False,
        json_schema_extra={"must_be": "a URL such as ws://localhost:9944"},
    )
    """The chain's RPC endpoints, separated by commas and tried in turn. A node also runs without any: it warns once and
    keeps the peers it knows. Left out of the repr, since a URL may carry a password."""
    registry: Annotated[str | Path, BeforeValidator(_registry)] | None = _setting(
        None, f"the path of a TOML file, {CHAIN}, or {CHAIN}:NAME, such as {CHAIN}:session"
    )
    """What decides who belongs: a TOML file of validators, watched for changes; ``substrate`` for the chain, read as
    its metadata suggests; or ``substrate:NAME`` for the chain, read by the reader of that name. If not given, the chain
    decides if ``blockchain_rpc`` is given; else only peers added by hand are admitted."""
    genesis: Annotated[str, AfterValidator(_genesis)] | None = _setting(
        None, "the 64 hexadecimal digits of the chain's genesis hash"
    )
    """Genesis hash of the chain, for a node without a delegation (which names it, too): even if the node has never
    reached its chain, it knows which mesh it is in, and no endpoint can pass off another chain as its own."""
    admission: Annotated[Literal["registry", "open"], BeforeValidator(_lower)] = _setting(
        "registry", "registry or open"
    )
    """Who gets in: peers that the registry names or, for demos and tests, any peer with a signed record."""
    bootstrap: Annotated[str, BeforeValidator(_listed), AfterValidator(_seeds)] = _setting(
        "", "addresses such as mesh.example.org:9090 or /ip4/192.0.2.1/tcp/9090, separated by commas"
    )
    """Front doors to start from if the registry gives no addresses. Three are enough; one name may stand for many."""
    max_peers: int = _count(100, 1, MAX_LINKS)
    """Links kept at once: a full mesh up to this many members, at about 250 KB and 14 file handles each."""

    # ---------------------------------------------------------------- gossip and liveness

    gossip_fanout: int = _count(5, 1, 128)
    """Peers that each relayed message is sent to: 5 reach 99 % of a large mesh, and repair reaches the rest."""
    heartbeat_interval: float = _seconds(60, 60)
    """Seconds between heartbeats: five fit into ``peer_timeout``, so four may be lost."""
    peer_timeout: float = _seconds(300, 300)
    """Seconds since its last signed message after which a peer counts as dead."""
    peer_forget: float | None = _seconds(None, 600, 7 * 86_400)
    """Seconds of silence until a peer is no longer listed; by default the longer of 600 and twice ``peer_timeout``."""

    # ---------------------------------------------------------------- limits

    author_rate: float = _rate(_BOUNDS.author_rate)
    """Gossip messages per second accepted from one account; each full 2 KiB of a message counts as one more."""
    author_burst: float = _burst(_BOUNDS.author_burst)
    """Gossip messages accepted from one account in one burst: five times as many as 1,000 announcements need."""
    link_rate: float = _rate(_BOUNDS.link_rate)
    """Frames per second accepted from one link: more than a core can verify, so only junk reaches this limit."""
    link_burst: float = _burst(_BOUNDS.link_burst)
    """Frames accepted from one link in one burst."""
    direct_rate: float = _rate(_BOUNDS.direct_rate)
    """Direct messages per second accepted from one account."""
    direct_burst: float = _burst(_BOUNDS.direct_burst)
    """Direct messages accepted from one account in one burst."""
    handler_queue: int = _count(4096, 1, 1_000_000)
    """Messages that may wait for one handler, each at most 64 KiB on the wire and up to ten times that in memory. A
    full queue refuses new ones and counts them; once it is half full, no account gets more than an even share of it."""
    handler_concurrency: int = _count(64, 1, 10_000)
    """Concurrent calls of one handler: slow ones overlap, and a flood starts no more tasks than this."""
    handler_timeout: float = _seconds(30, 30)
    """Seconds after which a call of a handler is cancelled and counted as hung, so that others can run in its place."""
    verify_threads: int = _count(2, 0, 64)
    """Threads that verify signatures under load; two are 1.9 times as fast as one, since they release the interpreter
    lock. With 0 or 1 there are none, and the event loop verifies alone."""
    stop_timeout: float = _seconds(5, 5, 300)
    """Seconds that ``stop()`` may take, half for handlers and half for goodbyes; a disk that hangs may add a quarter as
    many, and a registry half. With the default, the total stays below the 10 s after which container runtimes kill."""

    # ---------------------------------------------------------------- on disk and in the log

    state_dir: PathLike | None = _setting(None, "the path of a folder")
    """Folder for what outlives a restart (votes, epoch, reputations, records, validators); if not given, nothing is
    kept, and a validator that restarts can contradict its own votes."""
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = _setting(
        "INFO", "DEBUG, INFO, WARNING or ERROR"
    )
    """How much ``zmesh run`` logs. An embedding service keeps its own logging."""
    log_format: Literal["auto", "console", "json"] = _setting("auto", "auto, console or json")
    """Format of the log: ``auto`` is human-readable (``console``) on a terminal and JSON lines (``json``) elsewhere."""

    def __init__(self, **explicit: Any) -> None:
        """Explicit arguments by field name; None means "not given"."""
        try:
            super().__init__(**{name: value for name, value in explicit.items() if value is not None})
        except ValidationError as error:
            sentence: str | None = _sentence(error)
        else:
            sentence = self._contradiction()
        # Raised out here so that no cause is chained: pydantic's own text spans several lines.
        if sentence is not None:
            raise ConfigError(sentence)

    def _contradiction(self) -> str | None:
        """What is wrong between fields that are each valid, or None."""
        timeout = f"peer_timeout ({PREFIX}PEER_TIMEOUT)"
        if self.heartbeat_interval >= self.peer_timeout:
            interval = f"heartbeat_interval ({PREFIX}HEARTBEAT_INTERVAL), which is {self.heartbeat_interval:g} s"
            return f"{timeout} is {self.peer_timeout:g} s and must be several times {interval}"
        if self.peer_forget is not None and self.peer_forget < self.peer_timeout:
            forget = f"peer_forget ({PREFIX}PEER_FORGET) is {self.peer_forget:g} s"
            return f"{forget} and must not be shorter than {timeout}, which is {self.peer_timeout:g} s"
        return None

    def bounds(self) -> Bounds:
        """The settings that the protocol engine uses."""
        forget = max(_BOUNDS.forget, 2 * self.peer_timeout) if self.peer_forget is None else self.peer_forget
        return replace(
            _BOUNDS,
            max_links=self.max_peers,
            sparse_links=min(_BOUNDS.sparse_links, self.max_peers),
            fanout=self.gossip_fanout,
            alive=self.peer_timeout,
            forget=forget,
            author_rate=self.author_rate,
            author_burst=self.author_burst,
            link_rate=self.link_rate,
            link_burst=self.link_burst,
            direct_rate=self.direct_rate,
            direct_burst=self.direct_burst,
        )

    def registry_file(self) -> Path | None:
        """The file of validators if a file says who belongs, else None."""
        return None if self.registry is None or self.registry_chain() is not None else Path(self.registry)

    def registry_chain(self) -> str | None:
        """``substrate`` or ``substrate:NAME`` if the chain says who belongs, else None."""
        if self.registry is None:
            return CHAIN if "blockchain_rpc" in self.model_fields_set else None
        said = self.registry
        return said if isinstance(said, str) and said.partition(":")[0] == CHAIN else None

    def rpc_urls(self) -> tuple[str, ...]:
        """The chain's endpoints, in order."""
        return tuple(dict.fromkeys(split_list(self.blockchain_rpc)))

    def identity(self) -> Identity:
        """The key that ``private_key`` names, or a fresh one. Raises ``ConfigError``."""
        try:
            return load_key(None if self.private_key is None else self.private_key.get_secret_value())
        except ConfigError as error:
            raise ConfigError(f"private_key ({PREFIX}PRIVATE_KEY): {error}") from None

    def delegated(self, key: PeerKey) -> Delegation | None:
        """The delegation of ``delegation``, which must be for this key and this mesh; None without one. Raises
        ``ConfigError``.

        Whether it is valid at a given moment depends on the registry and the clock.
        """
        if self.delegation is None:
            return None
        named = f"delegation ({PREFIX}DELEGATION)"
        try:
            found = load_delegation(self.delegation)
        except ConfigError as error:
            raise ConfigError(f"{named}: {error}") from None
        said = found.statement
        if said.key != key:
            raise ConfigError(f"{named} is for the key {said.key.hex()}, not this node's {key.hex()}: sign another")
        if said.network != self.network:
            raise ConfigError(f"{named} is for the mesh {shown(said.network)} and must be for {shown(self.network)}")
        if not (found.held_by_key() and found.signed_by_account()):
            raise ConfigError(f"{named} has an invalid signature: make a new one with `zmesh key delegate`")
        return found

    def chain(self, delegation: Delegation | None) -> bytes:
        """Genesis hash of the chain if the settings give it, directly or within a delegation; else empty.

        Raises ``ConfigError`` if the two disagree.
        """
        told = bytes.fromhex(self.genesis or "")
        signed = b"" if delegation is None else delegation.statement.genesis
        if told and signed and told != signed:
            named = f"delegation ({PREFIX}DELEGATION) is for the chain {signed.hex()}"
            raise ConfigError(f"{named} and must be for that of genesis ({PREFIX}GENESIS), {told.hex()}")
        return told or signed

    def seeds(self) -> tuple[Endpoint, ...]:
        """``bootstrap`` as endpoints."""
        return tuple(map(parse_endpoint, self.bootstrap.split()))

    def advertised(self) -> Endpoint | None:
        """``advertise`` as an endpoint."""
        return None if self.advertise is None else parse_endpoint(self.advertise)


def suspicious_variables(environ: Mapping[str, str]) -> list[str]:
    """One sentence for each variable that looks like a mistyped setting, in the order of their names.

    Others that start with ``MESH_`` are not ours: Kubernetes sets some for every Service called "mesh".
    """
    return list(_mistyped(environ))


def _mistyped(environ: Mapping[str, str]) -> dict[str, str]:
    """Those sentences, each with the variable that was meant."""
    known = {variable_of(name) for name in Settings.model_fields}
    found = {}
    for variable in sorted(environ):
        near = difflib.get_close_matches(variable, known, n=1, cutoff=0.9)
        if near and variable not in known:
            found[f"{variable} is set but is not a setting: did you mean {near[0]}?"] = near[0]
    return found


def variable_of(field: str) -> str:
    """The environment variable of a field."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field.upper()


def _sentence(error: ValidationError) -> str:
    """One sentence for the first of pydantic's errors, and how many more there are."""
    first, *more = error.errors(include_url=False)
    place = str(first["loc"][0])
    field = _field_at(place)
    if field is None:
        near = difflib.get_close_matches(place, Settings.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else "see zmesh.config.Settings for the list"
        said = f"{place} is not a setting: {hint}"
    else:
        said = _SAYINGS.get(first["type"], _bad_value)(field, first)
    others = {str(one["loc"][0]) for one in more} - {place}
    return f"{said} (and {len(others)} more)" if others else said


def _field_at(place: str) -> str | None:
    """The field that pydantic means: it refers to some by their variable."""
    for name in Settings.model_fields:
        if place in {name, variable_of(name)}:
            return name
    return None


def _must_be(field: str) -> str:
    extra = Settings.model_fields[field].json_schema_extra
    assert isinstance(extra, dict)  # ``_setting`` gives one to every field
    return f"must be {extra['must_be']}"


def _missing(field: str, _error: Mapping[str, Any]) -> str:
    meant = [sentence for sentence, variable in _mistyped(os.environ).items() if variable == variable_of(field)]
    return meant[0] if meant else f"{field} ({variable_of(field)}) is missing: it {_must_be(field)}"


def _said_by_validator(field: str, error: Mapping[str, Any]) -> str:
    said = error["ctx"]["error"]
    return _bad_value(field, error) if isinstance(said, _BadValueError) else f"{field} ({variable_of(field)}): {said}"


def _bad_value(field: str, error: Mapping[str, Any]) -> str:
    value = error["input"]
    named = f"{field} ({variable_of(field)})"
    if field == "private_key":
        return f"{named} {_must_be(field)}, not a value of type {type(value).__name__}"
    hint = ""
    if isinstance(value, str) and value.startswith("tcp://") and field.endswith("_port"):
        hint = " (Kubernetes sets such a variable for a Service of that name: set `enableServiceLinks: false`)"
    return f"{named} {_must_be(field)}, not {shown(value)}{hint}"


_SAYINGS: dict[str, Callable[[str, Mapping[str, Any]], str]] = {
    "missing": _missing,
    "value_error": _said_by_validator,
}
