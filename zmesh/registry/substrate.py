"""A Substrate chain at one finalized block, through substrate-interface: the ``Chain`` that readers ask.

Rules
 1. Only the worker process imports this module: decoding a chain's metadata holds Python's lock for a second.
 2. Finalized heads only, and every answer is about the block that ``at`` chose.
 3. Maps are read in pages of ``PAGE`` keys. An item whose bytes are the same as at the block before is not decoded
    again.
 4. Accounts come as hexadecimal: SS58 is written once, at the end, with the chain's own prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from scalecodec.base import ScaleBytes
from substrateinterface import SubstrateInterface
from substrateinterface.storage import StorageKey
from substrateinterface.utils.hasher import blake2_128_concat, identity, two_x64_concat

from zmesh.core.sentence import shown
from zmesh.registry.chains.port import MAX_ACCOUNTS, ChainError
from zmesh.registry.port import HASH_SIZE
from zmesh.ss58 import GENERIC_PREFIX

PAGE = 500
"""Keys requested at once: nodes refuse more than 1,000, and an answer stays below 1 MB."""
MAX_PREFIX = 16_383
"""14 bits."""
_NO_PREFIXES = (46, 47)
"""Reserved by SS58, and refused by every decoder."""
_HASHERS: Mapping[str, tuple[Callable[[bytes], bytes], int]] = {
    "Blake2_128Concat": (blake2_128_concat, 16),
    "Twox64Concat": (two_x64_concat, 8),
    "Identity": (identity, 0),
}
"""The hashers that leave the key readable, as in every map that is meant to be listed: the function, and the bytes of
the hash in front of the key."""


class SubstrateChain:
    """Raises ``ChainError`` if the chain lacks something, and whatever the library raises if it does not answer.

    ``url``: ws, wss, http or https. ``timeout``: seconds for each call. ``progress`` is called after each answer.
    """

    def __init__(self, url: str, timeout: float, progress: Callable[[], None]) -> None:
        # The JSON parser checks UTF-8, too, in C: the websocket library's own check takes a second for one chain's
        # metadata.
        options = {"timeout": timeout, "skip_utf8_validation": True}
        self._client = SubstrateInterface(url=url, ws_options=options, auto_reconnect=False)
        session = getattr(self._client.transport, "session", None)
        if session is not None:  # over HTTP, where the library omits the timeout
            session.request = partial(session.request, timeout=timeout)
        self._progress = progress
        self._block = ""
        self._spec: object = None
        # Bytes -> decoded value, of the block before and of this one.
        self._known: dict[tuple[str, str], Any] = {}
        self._fresh: dict[tuple[str, str], Any] = {}

    # ---------------------------------------------------------------- blocks

    def genesis(self) -> bytes:
        """The 32 bytes of the genesis hash."""
        return _hash(self._call("chain_getBlockHash", 0))

    def finalized(self) -> str:
        """The hash of the finalized head, in hexadecimal."""
        return "0x" + _hash(self._call("chain_getFinalizedHead")).hex()

    def number(self, block: str) -> int:
        """The number of a block."""
        header = self._call("chain_getHeader", block)
        try:
            return int(header["number"], 16)
        except (KeyError, TypeError, ValueError):
            raise ChainError(f"the chain gives {shown(header)} where a block header is expected") from None

    def at(self, block: str) -> None:
        """Ask about this block from now on."""
        self._client.init_runtime(block_hash=block)
        self._progress()
        # Without a prefix the library leaves accounts as they are; it sets one with each runtime.
        self._client.runtime_config.ss58_format = None
        self._block = block
        same = self._client.runtime_version == self._spec
        self._known, self._fresh = (self._fresh if same else {}), {}
        self._spec = self._client.runtime_version

    def prefix(self) -> int:
        """The SS58 prefix: from the chain's properties, else from its runtime, else Substrate's own."""
        properties = self._call("system_properties")
        constant = self._client.get_constant("System", "SS58Prefix", block_hash=self._block)
        told = properties.get("ss58Format") if isinstance(properties, dict) else None
        for value in (told, None if constant is None else constant.value):
            if isinstance(value, int) and 0 <= value <= MAX_PREFIX and value not in _NO_PREFIXES:
                return value
        return GENERIC_PREFIX

    # ---------------------------------------------------------------- storage

    def offers(self, pallet: str, item: str) -> bool:
        """See ``chains.port.Chain``."""
        return self._item(pallet, item) is not None

    def fields(self, pallet: str, item: str) -> frozenset[str]:
        """See ``chains.port.Chain``."""
        found = self._item(pallet, item)
        if found is None:
            return frozenset()
        kind = self._client.runtime_config.get_decoder_class(found.get_value_type_string())
        mapping = getattr(kind, "type_mapping", None) or ()
        return frozenset(part[0] for part in mapping if isinstance(part, list | tuple) and len(part) == 2)

    def value(self, pallet: str, item: str, *keys: Any) -> Any:
        """See ``chains.port.Chain``."""
        self._offered(pallet, item)
        found = self._client.query(pallet, item, [_key(key) for key in keys], block_hash=self._block)
        self._progress()
        return found.value

    def entries(self, pallet: str, item: str, *keys: Any) -> Iterator[tuple[bytes, Any]]:
        """See ``chains.port.Chain``."""
        found = self._offered(pallet, item)
        _, hidden = _hasher(found)
        prefix = self._storage_key(pallet, item, keys)
        kind, count, last = found.get_value_type_string(), 0, prefix
        while page := self._call("state_getKeysPaged", prefix, PAGE, last, self._block):
            for name, value in self._at(page, kind):
                yield bytes.fromhex(name[len(prefix) + 2 * hidden :]), value
            count, before, last = count + len(page), last, page[-1]
            if count > MAX_ACCOUNTS or last == before:
                raise ChainError(f"{pallet}.{item} has no end: at most {MAX_ACCOUNTS} entries are read")
            if len(page) < PAGE:
                return

    def values(self, pallet: str, item: str, accounts: Sequence[bytes], *keys: Any) -> Mapping[bytes, Any]:
        """See ``chains.port.Chain``."""
        found = self._offered(pallet, item)
        kind, prefix, (hashed, _) = found.get_value_type_string(), self._storage_key(pallet, item, keys), _hasher(found)
        names = {prefix + hashed(account).hex(): account for account in accounts}
        listed = list(names)
        pages = (listed[start : start + PAGE] for start in range(0, len(listed), PAGE))
        return {names[name]: value for page in pages for name, value in self._at(page, kind) if name in names}

    # ---------------------------------------------------------------- inside

    def _item(self, pallet: str, item: str) -> Any:
        found = self._client.metadata.get_metadata_pallet(pallet)
        # A pallet without storage has no list to look in.
        return None if found is None or not found.storage else found.get_storage_function(item)

    def _offered(self, pallet: str, item: str) -> Any:
        found = self._item(pallet, item)
        if found is None:
            raise ChainError(f"the chain has no {pallet}.{item}")
        return found

    def _storage_key(self, pallet: str, item: str, keys: Sequence[Any]) -> str:
        name = StorageKey.create_from_storage_function(
            pallet, item, [_key(key) for key in keys], self._client.runtime_config, self._client.metadata
        )
        return str(name.to_hex())

    def _at(self, names: Sequence[str], kind: str) -> Iterator[tuple[str, Any]]:
        """Storage key -> value, decoded as ``kind``; keys without a value are left out."""
        for group in self._call("state_queryStorageAt", list(names), self._block):
            for name, raw in group["changes"]:
                if raw is not None:
                    yield name, self._decode(kind, raw)

    def _decode(self, kind: str, raw: str) -> Any:
        name = (kind, raw)
        if name not in self._fresh:
            value = self._known.get(name, self)
            if value is self:  # the sentinel: no value is this object
                thing = self._client.runtime_config.create_scale_object(
                    kind, data=ScaleBytes(raw), metadata=self._client.metadata
                )
                value = thing.decode()
            self._fresh[name] = value
        return self._fresh[name]

    def _call(self, method: str, *arguments: Any) -> Any:
        answer = self._client.rpc_request(method, list(arguments))
        self._progress()
        if "error" in answer:
            raise ChainError(f"the chain refuses {method}: {shown(answer['error'])}")
        return answer.get("result")


def _hasher(item: Any) -> tuple[Callable[[bytes], bytes], int]:
    """The hasher of a map's last key."""
    hashers = item.get_param_hashers()
    found = _HASHERS.get(hashers[-1]) if hashers else None
    if found is None:
        raise ChainError(f"{item.value['name']} is not a map whose keys can be read")
    return found


def _key(value: Any) -> Any:
    return "0x" + value.hex() if isinstance(value, bytes) else value


def _hash(value: object) -> bytes:
    try:
        found = bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else b""
    except ValueError:
        found = b""
    if len(found) != HASH_SIZE:
        raise ChainError(f"the chain gives {shown(value)} where a block hash is expected")
    return found
