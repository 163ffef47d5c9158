"""What the demo learns: handwritten digits, dealt out unfairly, and a model small enough for one message.

Rules
 1. The pictures are a real data set of 1,797 that ships with scikit-learn. The file is read directly, once, in the
    parent: importing scikit-learn takes longer than all the rest of the demo. The computation needs only numpy.
 2. No validator sees what another has, nor the held-out digits.
 3. A model is softmax regression from 64 pixels and a bias to 10 digits, 2,600 bytes of little-endian float32.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Model = NDArray[np.float32]
"""Weights, 65 rows (64 pixels, bias) by 10 columns (digits)."""

SHAPE = (65, 10)
HELD_OUT = 360
"""Pictures that no validator trains on: a fifth."""
SEEN = 5
"""Different digits that one validator has pictures of: alone it cannot learn the other five."""
FEWEST_UNFAIR = 4
"""Number of validators from which pictures are dealt like that; fewer get a bit of everything."""
STEPS = 20
"""Steps of gradient descent in one round: a few milliseconds."""
RATE = np.float32(1.0)
"""Step size: the largest that still descends steadily."""
SEED = 7
"""Seed for shuffling: every run deals the same pictures."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Pictures that belong to one validator."""

    pixels: NDArray[np.float32]
    """One row of 64 grey values, 0 to 1, for each picture."""
    labels: NDArray[np.int64]
    """The digit on each."""

    def __len__(self) -> int:
        return len(self.labels)

    def save(self, path: Path) -> None:
        """Write it as ``load`` reads it."""
        np.savez(path, pixels=self.pixels, labels=self.labels)

    @classmethod
    def load(cls, path: Path) -> Shard:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["pixels"], arrays["labels"])


def deal(validators: int) -> tuple[list[Shard], Shard]:
    """One shard for each of ``validators``, and the held-out pictures. Raises ``OSError`` without scikit-learn."""
    table = np.random.default_rng(SEED).permutation(_table())
    pixels, labels = (table[:, :64] / 16).astype(np.float32), table[:, 64].astype(np.int64)
    held_out = Shard(pixels[:HELD_OUT], labels[:HELD_OUT])
    pixels, labels = pixels[HELD_OUT:], labels[HELD_OUT:]
    hands: list[list[int]] = [[] for _ in range(validators)]
    for digit in range(10):
        players = [player for player in range(validators) if _gets(player, digit, validators)]
        for turn, picture in enumerate(np.flatnonzero(labels == digit)):
            hands[players[turn % len(players)]].append(int(picture))
    return [Shard(pixels[hand], labels[hand]) for hand in hands], held_out


def _table() -> NDArray[np.float64]:
    """One row for each picture: 64 grey values, 0 to 16, and the digit."""
    found = importlib.util.find_spec("sklearn")
    places = None if found is None else found.submodule_search_locations
    if not places:
        raise FileNotFoundError("scikit-learn is not installed")
    return np.loadtxt(Path(places[0]) / "datasets" / "data" / "digits.csv.gz", delimiter=",")


def _gets(player: int, digit: int, players: int) -> bool:
    """Around a circle of ten digits, each player gets ``SEEN`` in a row from its own starting point."""
    return players < FEWEST_UNFAIR or (digit - player * 10 // players) % 10 < SEEN


def blank() -> Model:
    """The model before the first round: it guesses."""
    return np.zeros(SHAPE, np.float32)


def train(model: Model, shard: Shard, rounds: int = 1) -> Model:
    """The model after ``rounds`` times ``STEPS`` steps of gradient descent on the cross-entropy over one shard."""
    inputs = _with_bias(shard)
    targets = np.eye(10, dtype=np.float32)[shard.labels]
    trained = model.copy()
    for _ in range(rounds * STEPS):
        scores = np.exp(inputs @ trained)
        guesses = scores / scores.sum(axis=1, keepdims=True)
        trained -= RATE * (inputs.T @ (guesses - targets)) / np.float32(len(shard))
    return trained


def average(deltas: Iterable[tuple[Model, int]]) -> Model:
    """Federated averaging: the mean of all deltas, each weighted by its number of pictures."""
    weighed = list(deltas)
    total = sum(count for _, count in weighed)
    summed = sum((delta * np.float32(count / total) for delta, count in weighed), start=blank())
    return summed.astype(np.float32)


def accuracy(model: Model, shard: Shard) -> float:
    """The share of pictures that the model classifies correctly, 0 to 1."""
    return float(np.mean(np.argmax(_with_bias(shard) @ model, axis=1) == shard.labels))


def to_bytes(model: Model) -> bytes:
    """2,600 bytes, the same on every machine."""
    return model.astype("<f4").tobytes()


def from_bytes(data: bytes) -> Model:
    """The inverse of ``to_bytes``. Raises ``ValueError`` unless these are the finite weights of one model."""
    model = np.frombuffer(data, dtype="<f4").reshape(SHAPE).astype(np.float32)
    if not np.isfinite(model).all():
        raise ValueError("a model has finite weights")
    return model


def fingerprint(data: bytes) -> str:
    """Identifies a model in an announcement: 32 hex digits, BLAKE2b-128 of its bytes."""
    return blake2b(data, digest_size=16).hexdigest()


def _with_bias(shard: Shard) -> NDArray[np.float32]:
    return np.hstack([shard.pixels, np.ones((len(shard), 1), np.float32)])
