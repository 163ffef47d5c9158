"""A key that signs and cannot connect: an Ed25519 point of mixed order (RFC 8032, section 5.1, for the arithmetic).

``A + T`` with T of order two is no point of the prime-order group, so that it has no X25519 image. Its holder signs by
drawing until the challenge is even: then T does not show, and libsodium is content.
"""

from __future__ import annotations

from hashlib import sha512

PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, PRIME) % PRIME
_BASE = (15112221349535400772501151409588531511454012693041857206046113283949847762202, 4 * pow(5, -1, PRIME) % PRIME)
_OF_ORDER_TWO = (0, PRIME - 1)
_SECRET = 123_456_789

Point = tuple[int, int]


def _add(left: Point, right: Point) -> Point:
    (x, y), (u, v) = left, right
    twist = _D * x * u * y * v
    return (x * v + u * y) * pow(1 + twist, -1, PRIME) % PRIME, (y * v + x * u) * pow(1 - twist, -1, PRIME) % PRIME


def _times(number: int, point: Point) -> Point:
    total = (0, 1)
    while number:
        if number & 1:
            total = _add(total, point)
        point = _add(point, point)
        number >>= 1
    return total


def _encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


class MixedOrder:
    """Stands where an ``Identity`` signs."""

    public = _encoded(_add(_times(_SECRET, _BASE), _OF_ORDER_TWO))

    def sign(self, data: bytes) -> bytes:
        """64 bytes that ``zmesh.identity.verify`` takes for ``public``'s."""
        nonce, challenge = 0, 1
        while challenge % 2:
            nonce += 1
            commitment = _encoded(_times(nonce, _BASE))
            challenge = int.from_bytes(sha512(commitment + self.public + data).digest(), "little") % ORDER
        return commitment + ((nonce + challenge * _SECRET) % ORDER).to_bytes(32, "little")
