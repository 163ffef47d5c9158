"""``mesh.seen_messages``: which messages were seen recently, for inspection and tests."""

from __future__ import annotations

from collections.abc import Iterator

from zmesh.core import wire
from zmesh.core.engine import Engine


class SeenView:
    """``mesh.seen_messages``: the ids, in hex, of what was seen in the last two minutes. Read only.

    A node remembers the first 16 bytes of each (32 hex digits); a longer id is cut for the look-up.
    """

    def __init__(self, engine: Engine | None) -> None:
        self._engine = engine

    def __len__(self) -> int:
        return 0 if self._engine is None else len(self._engine.seen)

    def __iter__(self) -> Iterator[str]:
        return iter(() if self._engine is None else [short.hex() for short in self._engine.seen])

    def __contains__(self, message_id: object) -> bool:
        if self._engine is None or not isinstance(message_id, str):
            return False
        try:
            return bytes.fromhex(message_id)[: wire.SHORT_ID] in self._engine.seen
        except ValueError:
            return False
