"""What the tests of links share: the state of one, and what was dialled and greeted."""

from __future__ import annotations

from typing import Any

from tests.unit.core_support import Bench, Person, people
from zmesh.core import wire
from zmesh.core.actions import Dial
from zmesh.core.link import LinkState

ALICE, BOB = people(2)


def state(bench: Bench, person: Person) -> LinkState:
    return bench.engine.links[person.public].state


def dials(bench: Bench) -> list[bytes]:
    return [dial.key for dial in bench.of(Dial)]


def hellos(bench: Bench) -> list[Any]:
    return [envelope for _, envelope in bench.envelopes(wire.HELLO_CODE)]
