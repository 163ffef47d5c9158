"""A whole engine under garbage: it never raises, every frame ends once, and nobody but the sender is to blame."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.test_wire import mutated, values
from tests.unit.core_support import ME, NETWORK, NOON, Bench, Person, short
from tests.unit.handlers_support import verify
from zmesh.core import wire
from zmesh.core.actions import Action, Deliver, Dropped, Offence, Verify, WakeAt
from zmesh.core.envelope import Envelope
from zmesh.core.errors import WireError
from zmesh.core.events import Broadcast, LinkClosed, LinkOpened, SendDirect, SendRefused
from zmesh.core.types import Frames, MessageType
from zmesh.handlers import Description, RecordPorts, default_handlers, encode_record
from zmesh.handlers.standing import Standing

MALLORY, BOB, CAROL = Person(2), Person(3), Person(4)
"""Mallory has a key and a link. Bob and Carol are honest, and what they signed is in everybody's hands."""

# ---------------------------------------------------------------- what Mallory can make

WORDS = [
    *("round_id", "state", "deadline", "min_stake", "proposal_id", "choice", "record", "known", "after", "until"),
    *("records", "more", "status", "peers_count", "capabilities", "quality_score", "model_cid", "skew_ms"),
]
RECORD = encode_record(Description("mallory"), NETWORK, MALLORY.public, 1, NOON.wall_ms, MALLORY.sign).encoded
telling = st.sampled_from([RECORD, [RECORD], "r", "running", 0, 1e300, [[MALLORY.public, 1]], MALLORY.public])
payloads = st.one_of(
    st.dictionaries(st.sampled_from(WORDS), values | telling, max_size=5).map(
        lambda value: bytes(msgpack.packb(value))
    ),
    st.binary(max_size=60),
)
kinds = st.sampled_from([*wire.KIND_CODES.values(), 12, wire.HELLO_CODE, wire.ACK_CODE, 99, 200])
said = st.fixed_dictionaries(
    {"payload": payloads, "kind": kinds, "sequence": st.integers(0, 9)},
    optional={
        "ttl": st.integers(0, 255),
        "epoch": st.sampled_from([0, 2**62]),
        "timestamp_ms": st.integers(NOON.wall_ms - 130_000, NOON.wall_ms + 20_000),
        "expiry_ms": st.sampled_from([0, 2**62]),
        "recipient": st.sampled_from([ME.public, ME.public, BOB.public]),
        "correlation": st.just(bytes(32)),
        "network": st.just(bytes(32)),
    },
).map(lambda fields: MALLORY.says(**fields))
HONEST = [
    *(CAROL.says(content={"n": number}) for number in range(4)),
    CAROL.says(kind=wire.KIND_CODES[MessageType.HEARTBEAT], content={"status": "healthy"}),
    CAROL.says(kind=200),
    CAROL.hello(ME.public),
    BOB.tells(ME.public),
    BOB.ack(ME.public, CAROL.says()),
    ME.says(),
]
messages = said | st.sampled_from(HONEST)


def sealed(body: bytes) -> Frames:
    """Whatever the bytes are, with a good signature of Mallory's."""
    return (b"\x01\x03\x01", body, MALLORY.sign(wire.signing_input(wire.message_id(body))))


def framed(message: Envelope, ttl: int) -> Frames:
    return message.frames(min(ttl, message.ttl), 1)


heads = st.binary(max_size=18) | st.binary(max_size=4).map(lambda rest: b"\x01" + rest)
ids = st.lists(
    st.sampled_from([short(message) for message in HONEST]) | st.binary(min_size=16, max_size=16), max_size=9
)
slots = st.integers(int(NOON.wall) - 140, int(NOON.wall) + 5) | st.integers(0, 2**64 - 1)
entries = st.lists(st.tuples(slots, st.integers(0, 2**32 - 1), st.binary(min_size=8, max_size=8)), max_size=5)
control_bodies = st.one_of(
    ids.map(wire.encode_ids),
    entries.map(lambda some: wire.encode_digest([wire.DigestEntry(*one) for one in sorted(some)])),
    st.lists(slots, max_size=5).map(lambda some: wire.encode_slots(sorted(some))),
    st.binary(max_size=70),
)
envelopes: st.SearchStrategy[Frames] = st.one_of(
    st.builds(framed, messages, st.integers(0, 255)),
    st.builds(
        lambda message, junk: (b"\x01\x00\x00", message.body, junk), messages, st.binary(min_size=64, max_size=64)
    ),
    st.builds(lambda head, message: (head, message.body, message.signature), heads, messages),
    mutated(said.map(lambda message: message.body)).map(sealed),
)
frames: st.SearchStrategy[Frames] = st.one_of(
    envelopes,
    envelopes,
    st.builds(lambda kind, body: (bytes([kind]), body), st.integers(0, 20), control_bodies),
    st.lists(st.binary(max_size=70), max_size=4).map(tuple),
)
events = st.one_of(
    st.just(LinkClosed(MALLORY.public, "gone")),
    st.just(LinkOpened(MALLORY.public)),
    st.just(LinkOpened(MALLORY.public, inbound=True)),
    st.just(SendDirect(MALLORY.public, MessageType.GOSSIP, {"to": "mallory"}, 1.0)),
    st.just(Broadcast(MessageType.GOSSIP, {"to": "all"})),
    st.just(SendRefused(MALLORY.public, None)),
    st.floats(0.0, 4.0),
)

# ---------------------------------------------------------------- what must hold


def among_others(**how: Any) -> Bench:
    handlers = default_handlers(
        lambda: {"status": "healthy"},
        RecordPorts(ME, NETWORK, verify, lambda key: Standing.ADMITTED),
        account=lambda: ME.member.account,
        members=lambda: [ME.member],
    )
    handlers.records.describe(Description("me"))
    # New people each time: how far they have counted must not depend on the examples before.
    others = [Person(number) for number in (2, 3, 4)]
    bench = Bench(others, handlers=handlers, **how)
    bench.connect(*others)
    return bench


def ends(actions: list[Action]) -> tuple[int, int]:
    """(deliveries, drops)"""
    return sum(isinstance(one, Deliver) for one in actions), sum(isinstance(one, Dropped) for one in actions)


def ends_once(bench: Bench, some: Frames) -> None:
    """One frame by Mallory ends as one delivery, or one drop, or is a link's own business."""
    delivered, dropped = ends(bench.receive(MALLORY, some))
    try:
        kind = wire.frame_type(some)
        code = wire.decode_body(some[1]).kind if kind == wire.ENVELOPE else None
    except WireError:
        assert (delivered, dropped) == (0, 1)
        return
    if kind != wire.ENVELOPE:
        assert delivered == 0
        assert dropped <= max(1, len(some[1]) // wire.SHORT_ID)
    elif code in (wire.HELLO_CODE, wire.ACK_CODE):
        assert (delivered, dropped) in ((0, 0), (0, 1))
    else:
        assert delivered + dropped == 1


def is_message(some: Frames) -> bool:
    """An envelope that is neither HELLO nor ACK."""
    try:
        if wire.frame_type(some) != wire.ENVELOPE:
            return False
        return wire.decode_body(some[1]).kind not in (wire.HELLO_CODE, wire.ACK_CODE)
    except WireError:
        return False


def what_happened(happenings: list[Any], **how: Any) -> tuple[list[str], ...]:
    """All that an engine did, and what it knows afterwards; but not whom it asked to verify, or when to be woken."""
    bench = among_others(**how)
    for happening in [*happenings, *happenings]:  # most of what comes once comes again
        if isinstance(happening, tuple):
            bench.receive(MALLORY, happening)
        elif isinstance(happening, float):
            bench.advance(happening)
        else:
            bench.handle(happening)
    bench.advance(1.0)
    engine = bench.engine
    return (
        [repr(action) for action in bench.actions if not isinstance(action, Verify | WakeAt)],
        sorted(known.hex() for known in engine.seen),
        [f"{reason} {count}" for reason, count in engine.drops.items() if count],
        [f"{peer.peer_id} {engine.peers.reputation.score(peer, bench.now.mono)}" for peer in engine.peers],
    )


@given(st.lists(st.one_of(frames, frames, frames, events), max_size=25))
def test_it_makes_no_difference_who_verifies_nor_how_late_the_rest_of_an_event_is_done(happenings: list[Any]) -> None:
    asked = what_happened(happenings)
    assert what_happened(happenings, lazy=True) == asked
    assert what_happened(happenings, verify=verify) == asked
    assert what_happened(happenings, verify=verify, lazy=True) == asked


@given(st.lists(st.one_of(frames, frames, frames, events), max_size=25))
def test_garbage_ends_counted_and_costs_nobody_else(happenings: list[Any]) -> None:
    bench = among_others()
    for happening in happenings:
        if isinstance(happening, tuple):
            ends_once(bench, happening)
        elif isinstance(happening, float):
            bench.advance(happening)
            for honest in (BOB, CAROL):
                bench.control(honest, wire.DIGEST)
        else:
            bench.handle(happening)

    assert {offence.culprit for offence in bench.of(Offence)} <= {MALLORY.public}
    assert sum(bench.engine.drops.values()) == len(bench.of(Dropped))
    mallory = bench.engine.links.get(MALLORY.public)
    if mallory is not None:
        assert mallory.holder.asked == sum(MALLORY.public in want.asked for want in bench.engine._wants._wants.values())
    assert {BOB.public, CAROL.public} <= set(bench.live)
    bench.fresh()
    bench.hear(BOB, BOB.says(sequence=10**6, timestamp_ms=bench.now.wall_ms))
    assert ends(bench.actions) == (1, 0), "the node goes on"


# ---------------------------------------------------------------- more of it, by seed


class Fuzzer:
    """Thousands of frames a second, less clever than a strategy: what it made is replayed by its seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.heard: list[Frames] = [message.frames(min(message.ttl, 4), 1) for message in HONEST]

    def frames(self) -> Frames:
        rng = self.rng
        made = rng.choice((self.message, self.message, self.again, self.control, self.noise))()
        if rng.random() < 0.2:
            made = self.spoil(made)
        self.heard = [*self.heard[-50:], made]
        return made

    def message(self) -> Frames:
        rng = self.rng
        content = {rng.choice(WORDS): self.value(3) for _ in range(rng.randrange(5))}
        fields: dict[str, Any] = {"kind": rng.choice([*wire.KIND_CODES.values(), rng.randrange(256)])}
        fields["payload"] = msgpack.packb(content)
        fields["sequence"] = rng.randrange(2**20)
        fields["timestamp_ms"] = NOON.wall_ms + rng.choice((0, 0, 0, -125_000, 15_000, -11_000))
        if rng.random() < 0.3:
            fields |= {
                "recipient": rng.choice((ME.public, BOB.public, None)),
                "correlation": rng.choice((None, bytes(32))),
            }
        return MALLORY.says(**fields).frames(rng.choice((0, 1, 4, 5, 6)), rng.randrange(256))

    def value(self, depth: int) -> Any:
        rng = self.rng
        if depth and rng.random() < 0.3:
            some = [self.value(depth - 1) for _ in range(rng.randrange(4))]
            return some if rng.random() < 0.5 else {rng.choice(("a", "b", 1, None, b"c")): one for one in some}
        return rng.choice(
            (RECORD, "r", "running", -1, 2**63, 1.5, float("nan"), None, True, MALLORY.public, "x" * 300, 1e308, b"")
        )

    def again(self) -> Frames:
        return self.rng.choice(self.heard)

    def control(self) -> Frames:
        rng = self.rng
        some = [rng.choice((rng.randbytes(16), short(rng.choice(HONEST)))) for _ in range(rng.randrange(9))]
        numbers = sorted({int(NOON.wall) + rng.randrange(-140, 5) for _ in range(rng.randrange(6))})
        digest = [wire.DigestEntry(number, rng.randrange(3), rng.randbytes(8)) for number in numbers]
        body = rng.choice((wire.encode_ids(some), wire.encode_slots(numbers), wire.encode_digest(digest), b""))
        return (bytes([rng.randrange(8)]), body)

    def noise(self) -> Frames:
        return tuple(self.rng.randbytes(self.rng.randrange(80)) for _ in range(self.rng.randrange(5)))

    def spoil(self, made: Frames) -> Frames:
        """A bit flipped, a frame cut short or gone, or the body spoilt before it was signed."""
        rng = self.rng
        if not made:
            return made
        at = rng.randrange(len(made))
        data = bytearray(made[at])
        if data and rng.random() < 0.7:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data) + 1) :]
        spoilt = (*made[:at], bytes(data), *made[at + 1 :])
        return sealed(spoilt[1]) if len(spoilt) == 3 and at == 1 and rng.random() < 0.7 else spoilt


@pytest.mark.parametrize("seed", range(6))
def test_a_flood_of_garbage_ends_counted_and_leaves_no_memory(seed: int) -> None:
    fuzzer, bench = Fuzzer(seed), among_others()
    for number in range(1500):
        ends_once(bench, fuzzer.frames())
        if number % 50 == 0:
            bench.handle(LinkOpened(MALLORY.public, inbound=fuzzer.rng.random() < 0.5))
            bench.advance(0.2)

    assert {offence.culprit for offence in bench.of(Offence)} <= {MALLORY.public}
    assert len(bench.engine.links[MALLORY.public].holder.offered) <= bench.engine.bounds.offers_per_link
    assert bench.engine._intake._verifying == {}
    bench.fresh()
    bench.hear(BOB, BOB.says(sequence=10**6, timestamp_ms=bench.now.wall_ms))
    assert ends(bench.actions) == (1, 0), "the node goes on"


@given(st.lists(envelopes, max_size=25), st.randoms())
def test_messages_whose_signatures_come_back_late_and_out_of_order_end_once_too(some: list[Frames], rng: Any) -> None:
    bench = among_others()
    bench.inline = False
    whole = [one for one in some if is_message(one)]
    for one in whole:
        bench.receive(rng.choice([MALLORY, BOB]), one)
        while bench.unverified and rng.random() < 0.4:
            bench.unverified.insert(0, bench.unverified.pop(rng.randrange(len(bench.unverified))))
            bench.verified()
    while bench.unverified:
        bench.verified()

    assert sum(ends(bench.actions)) == len(whole)
