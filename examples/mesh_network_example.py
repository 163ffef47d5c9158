"""A validator: it joins the mesh, trains when a round is announced, and coordinates a round if asked to.

Settings come from the environment, as in a container::

    zmesh key new validator.key                      # once; prints the public key for the registry
    export MESH_PEER_ID=validator_001                # the name in the registry
    export MESH_PRIVATE_KEY=validator.key
    export MESH_REGISTRY=registry.toml               # who the validators are, and where
    python examples/mesh_network_example.py          # or with --coordinate, on one of them

``curl http://localhost:9090/health`` reports its state. SIGTERM and Ctrl-C stop it cleanly: peers are notified.
"""

import argparse
import asyncio
import logging
import signal
import time

from zmesh import ConfigError, FLRoundAnnouncement, MeshMessage, MeshNetworkClient, MessageType

ROUND_SECONDS = 3600
TRAININGS = 4
"""Rounds that this validator trains for at once: for any further one it is busy."""

log = logging.getLogger(__name__)


class Validator:
    """What this service does with the mesh. ``train`` is where your own work goes."""

    def __init__(self, mesh: MeshNetworkClient) -> None:
        self.mesh = mesh
        self.trainings: set[asyncio.Task[None]] = set()
        mesh.register_handler(MessageType.FL_ROUND_START, self.on_round)
        mesh.register_handler(MessageType.MODEL_DELTA_TRANSFER, self.on_delta)

    async def coordinate(self) -> None:
        """Announce a round to all peers; their deltas come back to ``on_delta``."""
        message = await self.mesh.announce_fl_round(
            round_id=f"round_{int(time.time())}",
            dataset_name="belize_corpus",
            target_participants=len(self.mesh.peers),
            deadline=ROUND_SECONDS,  # seconds from now; the message also carries the absolute time
            min_stake=1000,
            reward_pool=50000,
            model_hash="QmInitialModel",
        )
        print(f"announced {message.payload['round_id']}", flush=True)

    async def on_round(self, message: MeshMessage) -> None:
        """A round was announced: train in a task, since a handler is cancelled after ``handler_timeout``, 30 s."""
        announced = FLRoundAnnouncement.from_dict(message.payload)
        dataset = announced.dataset_name or "a dataset without a name"  # only the round_id is required
        print(f"{message.sender_id} announced {announced.round_id} on {dataset}", flush=True)
        if len(self.trainings) >= TRAININGS:
            print(f"busy: no training for {announced.round_id}", flush=True)
            return
        training = asyncio.create_task(self.take_part(message.sender_id, announced))
        self.trainings.add(training)  # the event loop keeps only a weak reference
        training.add_done_callback(self.trainings.discard)

    async def take_part(self, coordinator: str, announced: FLRoundAnnouncement) -> None:
        """Train, and send the result straight back to the coordinator."""
        try:
            model_cid, quality = await self.train(announced)
            # An enum with a truth value: only DELIVERED is true; the others name the reason.
            result = await self.mesh.send_model_delta(coordinator, announced.round_id, model_cid, quality)
        except Exception:  # nothing awaits this task: report here whatever ended it
            log.exception("training for %s failed", announced.round_id)
        else:
            print(f"delta for {announced.round_id}: {result.value}", flush=True)

    async def give_up(self) -> None:
        """Cancel every training under way, because the node stops."""
        trainings = list(self.trainings)
        for training in trainings:
            training.cancel()
        await asyncio.gather(*trainings, return_exceptions=True)

    async def on_delta(self, message: MeshMessage) -> None:
        """A participant's result. Its author is verified: ``sender_id`` and ``account_id`` cannot be forged."""
        model_cid, quality = message.payload.get("model_cid"), message.payload.get("quality_score")  # both optional
        print(f"{message.sender_id} delivered {model_cid} with quality {quality}", flush=True)

    async def train(self, announced: FLRoundAnnouncement) -> tuple[str, float]:
        """Stands in for hours of work: returns where the result is stored (a CID) and how good it is (0 to 100)."""
        return f"QmDeltaOf{announced.round_id}", 95.5


async def run(coordinate: bool) -> None:
    """Run one validator from start to SIGTERM."""
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)

    mesh = MeshNetworkClient()  # all settings come from the environment; an argument here would override them
    validator = Validator(mesh)  # register handlers first, so that no message comes before them
    async with mesh:
        print(f"{mesh.peer_id} listens on port {mesh.listen_port}, public key {mesh.public_key}", flush=True)
        peers = await mesh.discover_peers()
        print(f"found {len(peers)} other validators", flush=True)
        try:
            if coordinate:
                await validator.coordinate()
            await told_to_stop.wait()
        finally:
            await validator.give_up()
    print("stopped", flush=True)


def main() -> None:
    """Read the one option and run."""
    parser = argparse.ArgumentParser(description="A validator on the mesh.")
    parser.add_argument("--coordinate", action="store_true", help="announce a round after the start")
    options = parser.parse_args()
    try:
        asyncio.run(run(options.coordinate))
    except ConfigError as error:
        raise SystemExit(f"mesh_network_example: {error}") from None


if __name__ == "__main__":
    main()
