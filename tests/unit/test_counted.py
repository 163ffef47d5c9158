"""Every counter whose name stands in the code is in /metrics before it first counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zmesh.counted import LAYERS
from zmesh.handlers import RecordOutcome
from zmesh.handlers.standing import Standing

ROOT = Path(__file__).parents[2]
COUNTED = re.compile(r'counters\["(\w+)"\]')
DOOR = re.compile(r'(?:count\(|return |else |transport, )"(\w+)"')
"""What the front door counts: names without their ``door_``."""
FILES = {
    "transport": sorted(set((ROOT / "transports").glob("*.py")) - {ROOT / "transports/simulator.py"}),
    "front_door": [ROOT / "zmesh/http.py"],
    "handler": [ROOT / "zmesh/dispatch.py"],
    "record": [ROOT / "handlers/records.py"],
    "registry": [ROOT / "zmesh/registry/chain.py"],
    "node": [ROOT / "zmesh/node.py", ROOT / "zmesh/running.py"],
}


@pytest.mark.parametrize("layer", FILES)
def test_what_a_layer_counts_is_there_from_the_start(layer: str) -> None:
    names = {name for path in FILES[layer] for name in COUNTED.findall(path.read_text(encoding="utf-8"))}
    assert names
    assert names <= set(LAYERS[layer].events)


def test_what_the_front_door_counts_is_there_from_the_start() -> None:
    text = (ROOT / "transports/front_door.py").read_text(encoding="utf-8")
    names = {f"door_{name}" for name in DOOR.findall(text)}
    assert names == {name for name in LAYERS["front_door"].events if name.startswith("door_")}


def test_every_outcome_of_an_enumeration_is_there_from_the_start() -> None:
    standings = {standing.value for standing in Standing}
    # What is refused is counted under the reason instead.
    outcomes = {outcome.value for outcome in RecordOutcome if outcome is not RecordOutcome.REFUSED}
    assert standings <= set(LAYERS["admission"].events)
    assert (standings | outcomes) - {Standing.ADMITTED.value} <= set(LAYERS["record"].events)


def test_every_event_has_one_sentence_of_meaning() -> None:
    for layer in LAYERS.values():
        for meaning in (layer.help, *layer.events.values()):
            assert re.fullmatch(r"[A-Z][^.\n|]*(?:\.md[^.\n|]*)?\.", meaning), meaning
