"""Who may connect: answers ZeroMQ's authentication requests (RFC 27, ZAP) from one table.

Theory
    A CURVE server proves that the client holds the secret of an X25519 key, and asks ZAP whether that key is welcome.
    The table holds the X25519 image of every admitted Ed25519 key, so the answer also names the peer: ``User-Id`` on
    every frame of that connection is the Ed25519 key in hex.
Rules
 1. Only keys in the table get through; there is no mode that admits strangers.
 2. A key and its negative share one X25519 image, so one secret could appear as two members: the second is refused
    (``image_collision``). Our own image counts as taken from the start.
 3. ``answer`` never raises: a missing reply would stall every later handshake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from zmesh.core.errors import ConfigError
from zmesh.core.types import PeerKey
from zmesh.core.wire import KEY_SIZE
from zmesh.identity import Identity, curve_image

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_DOMAIN = b"zmesh"
ZAP_VERSION = b"1.0"
ZAP_FRAMES = 7
"""Frames of a CURVE request: version, request id, domain, address, routing id, mechanism, key."""
MAX_REQUEST_ID = 255
"""Bytes, by RFC 27."""
REFUSED = (b"400", b"not admitted", b"", b"")


class Admission:
    """The table of admitted keys."""

    def __init__(self, identity: Identity, counters: Counter[str]) -> None:
        self.by_user_id: dict[str, PeerKey] = {}
        """``User-Id`` (hex) -> admitted key: the only way to tell which peer sent a frame."""
        self._own_key = identity.public
        self._own_image = identity.curve_public
        self._images: dict[PeerKey, bytes] = {}
        self._user_ids: dict[bytes, bytes] = {}
        self._refused: frozenset[PeerKey] = frozenset()
        self._counters = counters

    def __contains__(self, key: PeerKey) -> bool:
        return key in self._images

    def image(self, key: PeerKey) -> bytes:
        """The 32-byte CURVE key of an admitted key. Raises ``KeyError`` for any other."""
        return self._images[key]

    def replace(self, keys: frozenset[PeerKey]) -> frozenset[PeerKey]:
        """Admit exactly ``keys``, except our own and refused ones; return the keys that are no longer admitted.

        Refused are the keys of rule 2 and those that CURVE cannot use (``key_unusable``). A refused key is counted once
        for as long as it stays in ``keys``.
        """
        removed = frozenset(self._images) - keys
        for key in removed:
            del self._user_ids[self._images.pop(key)]
            del self.by_user_id[key.hex()]
        refused = set()
        # Sorted, so that which of two new twins stays does not depend on set order.
        for key in sorted(keys - self._images.keys() - {self._own_key}):
            why = self._add(key)
            if why is not None:
                refused.add(key)
                if key not in self._refused:
                    self._counters[why] += 1
        self._refused = frozenset(refused)
        return removed

    def answer(self, request: Sequence[bytes]) -> tuple[bytes, ...]:
        """The reply to one ZAP request; both are frames without the routing envelope."""
        try:
            request_id = bytes(request[1])[:MAX_REQUEST_ID]
            if len(request) != ZAP_FRAMES or request[0] != ZAP_VERSION:
                raise ValueError("not a CURVE request of ZAP 1.0")
            if request[2] != ZAP_DOMAIN or request[5] != b"CURVE" or len(request[6]) != KEY_SIZE:
                raise ValueError("not a CURVE request to this domain")
            user_id = self._user_ids.get(request[6])
        except (IndexError, TypeError, ValueError):
            self._counters["zap_malformed"] += 1
            return (ZAP_VERSION, bytes(request[1])[:MAX_REQUEST_ID] if len(request) > 1 else b"", *REFUSED)
        if user_id is None:
            self._counters["zap_stranger"] += 1
            return (ZAP_VERSION, request_id, *REFUSED)
        return (ZAP_VERSION, request_id, b"200", b"OK", user_id, b"")

    def _add(self, key: PeerKey) -> str | None:
        """Admit one key; if it is refused, return the counter name of the refusal."""
        try:
            image = curve_image(key)
        except ConfigError:
            return "key_unusable"
        if image == self._own_image or image in self._user_ids:
            return "image_collision"
        self._images[key] = image
        user_id = key.hex()
        self._user_ids[image] = user_id.encode()
        self.by_user_id[user_id] = key
        return None
