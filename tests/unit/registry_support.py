"""A chain made of nothing: metadata and storage as real SCALE bytes, behind the JSON-RPC of a Substrate node over HTTP.

No public runtime has BelizeChain's map of validators. What is served here is encoded from the types it declares, by
the same codec that decodes what real nodes send; only the node is not real.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from scalecodec.base import RuntimeConfigurationObject, ScaleBytes
from scalecodec.type_registry import load_type_registry_preset
from scalecodec.utils.ss58 import ss58_encode
from substrateinterface.storage import StorageKey

GENESIS = bytes([0x11]) * 32
PREFIX = 77
# Numbers of the types below, as a portable registry counts them.
U8, U32, U128, BYTES32, ACCOUNT, BYTES64, BYTES, VALIDATOR, METADATA, ACCOUNTS, U16 = range(11)
VALIDATOR_FIELDS = {
    "account": ACCOUNT,
    "stake": U128,
    "compute_capacity": U32,
    "location": BYTES64,
    "compliance_score": U8,
    "last_fl_contribution": U32,
    "quality_score": U8,
    "timeliness_score": U8,
    "honesty_score": U8,
    "total_contributions": U32,
}
METADATA_FIELDS = {"network_address": BYTES, "public_key": BYTES32, "stake": U128}


def account(number: int) -> bytes:
    """The id of an account that nobody holds the key of."""
    return bytes([number % 256, number // 256]) * 16


def address(number: int, prefix: int = PREFIX) -> str:
    """The same as SS58."""
    return str(ss58_encode(account(number), prefix))


def validator(number: int, stake: int = 0, **scores: int) -> dict[str, Any]:
    """An entry of BelizeChain's map, as its pallet would encode it."""
    plain: dict[str, Any] = dict.fromkeys(VALIDATOR_FIELDS, 100)
    return {**plain, "account": "0x" + account(number).hex(), "location": "0x" + "00" * 64, "stake": stake, **scores}


def _kind(path: list[str], definition: dict[str, Any]) -> dict[str, Any]:
    return {"path": path, "params": [], "def": definition, "docs": []}


def _field(name: str | None, kind: int) -> dict[str, Any]:
    return {"name": name, "type": kind, "typeName": None, "docs": []}


def _struct(path: list[str], fields: Mapping[str, int]) -> dict[str, Any]:
    listed: list[dict[str, Any]] = [
        {"name": name, "type": kind, "typeName": None, "docs": []} for name, kind in fields.items()
    ]
    return _kind(path, {"composite": {"fields": listed}})


def _types() -> list[dict[str, Any]]:
    kinds = {
        U8: _kind([], {"primitive": "u8"}),
        U16: _kind([], {"primitive": "u16"}),
        U32: _kind([], {"primitive": "u32"}),
        U128: _kind([], {"primitive": "u128"}),
        BYTES32: _kind([], {"array": {"len": 32, "type": U8}}),
        ACCOUNT: _kind(["sp_core", "crypto", "AccountId32"], {"composite": {"fields": [_field(None, BYTES32)]}}),
        BYTES64: _kind([], {"array": {"len": 64, "type": U8}}),
        BYTES: _kind([], {"sequence": {"type": U8}}),
        VALIDATOR: _struct(["pallet_belize_staking", "ValidatorInfo"], VALIDATOR_FIELDS),
        METADATA: _struct(["pallet_staking", "ValidatorMetadata"], METADATA_FIELDS),
        ACCOUNTS: _kind([], {"sequence": {"type": ACCOUNT}}),
    }
    return [{"id": number, "type": kinds[number]} for number in sorted(kinds)]


def _pallet(
    index: int, name: str, items: Mapping[str, int | tuple[int, int]], constants: Mapping[str, int]
) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for item, kind in items.items():
        hashed = (
            {"hashers": ["Blake2_128Concat"], "key": kind[0], "value": kind[1]} if isinstance(kind, tuple) else None
        )
        shape = {"Plain": kind} if hashed is None else {"Map": hashed}
        entries.append({"name": item, "modifier": "Optional", "type": shape, "default": "0x00", "documentation": []})
    return {
        "name": name,
        "storage": {"prefix": name, "entries": entries},
        "calls": None,
        "event": None,
        "constants": [
            {"name": one, "type": U16, "value": "0x" + value.to_bytes(2, "little").hex(), "documentation": []}
            for one, value in constants.items()
        ],
        "error": None,
        "index": index,
    }


class Node:
    """What a node of that chain answers: one block after another, each with its storage."""

    def __init__(self, items: Mapping[str, int | tuple[int, int]], prefix: int | None = PREFIX) -> None:
        """``items``: ``Pallet.Item`` -> the type of its value, or for a map of its key and value.

        ``prefix``: what the constant System.SS58Prefix says; None leaves it out.
        """
        self._items = dict(items)
        self._config = RuntimeConfigurationObject()
        self._config.update_type_registry(load_type_registry_preset("core"))
        pallets: dict[str, dict[str, int | tuple[int, int]]] = {"System": {}}
        for name, kind in items.items():
            pallet, _, item = name.partition(".")
            pallets.setdefault(pallet, {})[item] = kind
        constants = {} if prefix is None else {"SS58Prefix": prefix}
        described = {
            "types": {"types": _types()},
            "pallets": [
                _pallet(at, name, pallets[name], constants if name == "System" else {})
                for at, name in enumerate(pallets)
            ],
            "extrinsic": {"ty": U8, "version": 4, "signed_extensions": []},
            "runtime_type": U8,
        }
        encoded = self._config.create_scale_object("MetadataVersioned").encode(("0x6d657461", {"V14": described}))
        self._metadata_hex = encoded.to_hex()
        self._metadata = self._config.create_scale_object("MetadataVersioned", data=ScaleBytes(self._metadata_hex))
        self._metadata.decode()
        self._config.add_portable_registry(self._metadata)
        self.properties: Any = {"ss58Format": PREFIX}
        self.genesis = GENESIS
        self.number = 0
        self.asked: list[str] = []
        """The RPC methods that were called."""
        self._storage: dict[str, str] = {}
        self.lock = threading.Lock()

    def put(self, name: str, value: Any, blocks: int = 1) -> None:
        """The value of a plain item, or the entries of a map: account number -> value. So many blocks later."""
        kind = self._items[name]
        with self.lock:
            if isinstance(kind, tuple):
                prefix = self._key(name)
                self._storage = {key: raw for key, raw in self._storage.items() if not key.startswith(prefix)}
                for number, one in value.items():
                    self._storage[self._key(name, "0x" + account(number).hex())] = self._encoded(kind[1], one)
            else:
                self._storage[self._key(name)] = self._encoded(kind, value)
            self.number += blocks

    def _key(self, name: str, *keys: str) -> str:
        pallet, _, item = name.partition(".")
        key = StorageKey.create_from_storage_function(pallet, item, list(keys), self._config, self._metadata)
        return str(key.to_hex())

    def _encoded(self, kind: int, value: Any) -> str:
        return str(self._config.create_scale_object(f"scale_info::{kind}").encode(value).to_hex())

    def _hash(self) -> str:
        return f"0x{self.number:064x}"

    def answer(self, method: str, params: list[Any]) -> Any:
        """The result of one call."""
        with self.lock:
            self.asked.append(method)
            simple = {
                "rpc_methods": {"methods": ["state_getStorageAt", "state_getRuntimeVersion"]},
                "system_chain": "Nowhere",
                "system_properties": self.properties,
                "chain_getFinalizedHead": self._hash(),
                "chain_getBlockHash": "0x" + self.genesis.hex(),
                "chain_getHeader": {"number": hex(self.number), "parentHash": "0x" + "00" * 32},
                "state_getRuntimeVersion": {"specVersion": 1, "transactionVersion": 1},
                "state_getMetadata": self._metadata_hex,
            }
            if method == "state_getKeysPaged":
                prefix, count, after, _ = params
                return [key for key in sorted(self._storage) if key.startswith(prefix) and key > after][:count]
            if method == "state_queryStorageAt":
                return [{"block": params[1], "changes": [[key, self._storage.get(key)] for key in params[0]]}]
            return self._storage.get(params[0]) if method == "state_getStorageAt" else simple[method]


@contextmanager
def served(node: Node) -> Iterator[str]:
    """The URL at which the node answers, as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            result = node.answer(request["method"], request["params"])
            content = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
