"""One validator of the demo: a process of its own, which embeds zmesh as any service would.

The parent runs it as ``python -m zmesh.demo.validator FOLDER OTHERS ROUNDS SETTINGS``. The folder's name is the
validator's, and the folder holds its key and its pictures. OTHERS is the number of other validators. ROUNDS is the
number of rounds to lead, and 0 for all but the coordinator. SETTINGS is a JSON object, arguments for its client.

Rules
 1. Lines on stdin are orders (``meet``, ``begin``), lines on stdout are reports, one JSON object each.
 2. When stdin ends, this process ends, however the parent came to its own end.
 3. Times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from zmesh import MeshMessage, MeshNetworkClient, MessageType
from zmesh.demo.digits import (
    Model,
    Shard,
    accuracy,
    average,
    blank,
    fingerprint,
    from_bytes,
    to_bytes,
    train,
)
from zmesh.demo.ground import KEY_FILE

SHARD_FILE = "digits.npz"
ROUND_SECONDS = 30.0
"""Seconds that a coordinator waits for deltas: training takes milliseconds, and a lost process must not hold it up."""


def report(event: str, **fields: Any) -> None:
    """Send a report to the parent. Raises ``BrokenPipeError`` if the parent is gone."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


class Validator:
    """Trains on its own pictures whenever a round is announced, and sends what it learnt straight back."""

    def __init__(self, mesh: MeshNetworkClient, shard: Shard, others: int) -> None:
        self.mesh = mesh
        self.shard = shard
        self.others = others
        mesh.register_handler(MessageType.FL_ROUND_START, self.on_round)
        mesh.register_handler(MessageType.FL_ROUND_UPDATE, self.on_result)

    async def on_round(self, message: MeshMessage) -> None:
        """A round was announced: the model came with it."""
        self.heard(message)
        sent = message.payload["model"]
        if fingerprint(sent) != message.payload["model_hash"]:
            raise ValueError(f"the model of {message.payload['round_id']} is not the one announced")
        model = from_bytes(sent)
        trained = await asyncio.to_thread(train, model, self.shard)
        delta = to_bytes(trained - model)
        result = await self.mesh.send_model_delta(
            recipient_id=message.sender_id,
            round_id=message.payload["round_id"],
            model_cid=fingerprint(delta),
            quality_score=100 * accuracy(trained, self.shard),
            delta=delta,
            pictures=len(self.shard),
        )
        report("delta_sent", round=message.payload["round_id"], result=result.value)

    async def on_result(self, message: MeshMessage) -> None:
        """The last model was announced."""
        self.heard(message)

    def heard(self, message: MeshMessage) -> None:
        """Report when gossip came, and how many copies of everything have come so far."""
        report("heard", round=message.payload["round_id"], at=time.monotonic(), **self.copies())

    def copies(self) -> dict[str, int]:
        """Gossip messages that this node has seen, and how often it got one that it had already."""
        duplicates = 0
        for line in self.mesh.metrics().splitlines():
            if line.startswith('zmesh_frames_dropped_total{reason="duplicate"}'):
                duplicates = int(line.split()[-1])
        return {"seen": len(self.mesh.seen_messages), "duplicates": duplicates}

    async def meet(self) -> None:
        """Wait until the links to all others are live."""
        await self.mesh.wait_for_links(self.others, None)  # the parent limits the time
        report("linked", peers=len(self.mesh.peers))


class Coordinator(Validator):
    """Leads the rounds, and takes part in them like every other validator."""

    def __init__(self, mesh: MeshNetworkClient, shard: Shard, others: int) -> None:
        super().__init__(mesh, shard, others)
        self.round_id = ""
        self.deltas: dict[str, tuple[Model, int]] = {}
        self.complete = asyncio.Event()
        mesh.register_handler(MessageType.MODEL_DELTA_TRANSFER, self.on_delta)

    async def on_delta(self, message: MeshMessage) -> None:
        """A validator sent what it learnt."""
        if message.payload["round_id"] != self.round_id:
            return
        self.deltas[message.sender_id] = (from_bytes(message.payload["delta"]), int(message.payload["pictures"]))
        report("delta", round=self.round_id, sender=message.sender_id)
        if len(self.deltas) == self.others:
            self.complete.set()

    async def lead(self, rounds: int) -> None:
        """Announce, train, collect, average; at the end, send everybody the last model."""
        model = blank()
        for number in range(1, rounds + 1):
            self.round_id = f"round_{number:03}"
            self.deltas.clear()
            self.complete.clear()
            sent = to_bytes(model)
            report("announced", round=self.round_id, at=time.monotonic())
            await self.mesh.announce_fl_round(
                round_id=self.round_id,
                dataset_name="handwritten digits",
                target_participants=self.others + 1,
                deadline=ROUND_SECONDS,
                model_hash=fingerprint(sent),
                model=sent,
            )
            trained = await asyncio.to_thread(train, model, self.shard)
            with suppress(TimeoutError):
                async with asyncio.timeout(ROUND_SECONDS):
                    await self.complete.wait()
            everybody = {self.mesh.peer_id: (trained - model, len(self.shard)), **self.deltas}
            # In order of name, so that rounding does not depend on who was first.
            model = model + average(everybody[name] for name in sorted(everybody))
            report("averaged", round=self.round_id, model=base64.b64encode(to_bytes(model)).decode())
        report("announced", round="result", at=time.monotonic())
        await self.mesh.broadcast(
            MessageType.FL_ROUND_UPDATE, {"round_id": "result", "state": "closed", "model": to_bytes(model)}
        )


async def live(folder: Path, others: int, rounds: int, settings: Mapping[str, Any]) -> None:
    """One validator's life, from its key to the end of stdin."""
    mesh = MeshNetworkClient(
        peer_id=folder.name,
        listen_port=0,  # any free one: ten nodes share this machine
        listen_host="127.0.0.1",
        private_key=str(folder / KEY_FILE),
        stop_timeout=2.0,
        **settings,
    )
    orders = await _orders()
    async with mesh:
        shard = Shard.load(folder / SHARD_FILE)
        validator = (Coordinator if rounds else Validator)(mesh, shard, others)
        report("listening", port=mesh.listen_port)
        try:
            async with asyncio.TaskGroup() as doing:
                async for order in orders:
                    if order == b"meet\n":
                        doing.create_task(validator.meet())
                    elif order == b"begin\n" and isinstance(validator, Coordinator):
                        doing.create_task(validator.lead(rounds))
                raise _ParentLeftError
        except* _ParentLeftError:
            report("stopped", **validator.copies())


class _ParentLeftError(Exception):
    """There are no more orders: all work under way ends."""


async def _orders() -> asyncio.StreamReader:
    """Lines on stdin."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def main() -> None:
    """Run the validator that the arguments name."""
    folder, others, rounds, settings = sys.argv[1:]
    with suppress(BrokenPipeError):
        asyncio.run(live(Path(folder), int(others), int(rounds), json.loads(settings)))


if __name__ == "__main__":
    main()
