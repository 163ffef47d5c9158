"""Peer records: the format, who may have one, which one wins, and how they spread."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.handlers_support import NETWORK, NOON, Someone, judge, later, naming, run, take, verify
from zmesh.core import wire
from zmesh.core.errors import ConfigError, WireError
from zmesh.core.events import Broadcast, Located, SendDirect
from zmesh.core.types import DropReason, Endpoint, MessageType, PeerKey, Verdict
from zmesh.handlers import (
    Description,
    Record,
    RecordPorts,
    Records,
    Taken,
    decode_record,
    encode_record,
    is_local,
    verify_record,
)

ALICE, BOB, CAROL = Someone(1), Someone(2), Someone(3)
PUBLIC = Description("alice", (Endpoint("203.0.113.7", 9090), Endpoint("a.example", 9090)), 41001, 41002, ("train",))


def record(of: Someone, sequence: int = 1, described: Description = PUBLIC, network: bytes = NETWORK) -> Record:
    return encode_record(described, network, of.public, sequence, NOON.wall_ms, of.sign)


def records(of: Someone = BOB, own: Description | None = None, **options: Any) -> Records:
    return Records(RecordPorts(of, NETWORK, verify, naming(ALICE, BOB, CAROL)), own, **options)


def having_asked(handler: Records) -> Records:
    """It looks at answers from ``NOON`` on."""
    handler.wake(later(-1.0))
    handler.wake(NOON)
    return handler


def announce(of: Someone, what: Record) -> Any:
    return of.says(MessageType.PEER_ANNOUNCE, {"record": what.encoded})


# ---------------------------------------------------------------- the format


def test_a_record_comes_back_as_it_was_signed() -> None:
    made = record(ALICE, sequence=7)

    back = decode_record(made.encoded)

    assert back == made
    assert (back.peer_id, back.endpoints, back.router_port, back.gossip_port) == (
        "alice",
        (Endpoint("203.0.113.7", 9090), Endpoint("a.example", 9090)),
        41001,
        41002,
    )
    assert (back.capabilities, back.wire_versions, back.sequence, back.time_ms) == (
        ("train",),
        (1,),
        7,
        NOON.wall_ms,
    )
    assert back.multiaddrs == ("/ip4/203.0.113.7/tcp/9090", "/dns/a.example/tcp/9090")
    assert verify_record(back, verify)


def test_no_byte_of_a_record_can_be_changed() -> None:
    encoded = record(ALICE).encoded
    for position in range(len(encoded)):
        forged = bytearray(encoded)
        forged[position] ^= 1
        try:
            decoded = decode_record(bytes(forged))
        except WireError as error:
            assert error.reason is DropReason.MALFORMED
        else:
            assert not verify_record(decoded, verify), position


def test_every_truncation_is_malformed_and_a_trailing_field_is_ignored() -> None:
    made = record(ALICE)
    for size in range(len(made.encoded)):
        with pytest.raises(WireError):
            decode_record(made.encoded[:size])
    fields = msgpack.unpackb(made.encoded[:-64])
    grown = decode_record(msgpack.packb([*fields, "later", 1]) + made.encoded[-64:])
    assert replace(grown, encoded=made.encoded) == made


@given(st.binary(max_size=300))
def test_garbage_is_only_ever_malformed(data: bytes) -> None:
    for encoded in (data, data + bytes(64)):
        with pytest.raises(WireError) as caught:
            decode_record(encoded)
        assert caught.value.reason is DropReason.MALFORMED


@given(st.lists(st.one_of(st.none(), st.integers(-1, 2**63), st.text(), st.binary(max_size=33), st.lists(st.text()))))
def test_an_array_of_anything_is_only_ever_malformed(values: list[object]) -> None:
    with pytest.raises(WireError) as caught:
        decode_record(msgpack.packb(values) + bytes(64))
    assert caught.value.reason is DropReason.MALFORMED


@pytest.mark.parametrize(
    "wrong",
    [
        {"peer_id": ""},
        {"peer_id": "é" * 65},
        {"endpoints": (Endpoint("a.example", 0),)},
        {"endpoints": (Endpoint("a b", 1),)},
        {"endpoints": (Endpoint("a/../b", 1),)},
        {"endpoints": (Endpoint("", 1),)},
        {"endpoints": (Endpoint("127.1", 1),)},
        {"endpoints": (Endpoint("2130706433", 1),)},
        {"endpoints": (Endpoint("0x7f000001", 1),)},
        {"endpoints": (Endpoint("0177.0.0.1", 1),)},
        {"endpoints": (Endpoint("127.0.0.1.", 1),)},
        {"endpoints": (Endpoint("a::b::c", 1),)},
        {"endpoints": tuple(Endpoint("a.example", port) for port in range(1, 10))},
        {"router_port": 65536},
        {"capabilities": ("x" * 65,)},
        {"wire_versions": (0,)},
    ],
)
def test_a_description_out_of_bounds_is_refused_at_its_maker(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="out of bounds; right is"):
        replace(PUBLIC, **wrong)


def test_the_widest_record_fits() -> None:
    widest = Description(
        "p" * 128,
        tuple(Endpoint("h" * 253, 65535) for _ in range(8)),
        65535,
        65535,
        tuple("c" * 64 for _ in range(16)),
        (1,) * 8,
    )
    assert decode_record(record(ALICE, wire.MAX_UINT, widest).encoded).peer_id == "p" * 128


@pytest.mark.parametrize(
    "host,local",
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("169.254.1.1", True),
        ("fe80::1", True),
        ("224.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("node.localhost", True),
        ("10.0.0.1", False),
        ("203.0.113.7", False),
        ("localhost.example", False),
        ("a.example", False),
    ],
)
def test_local_addresses_are_told_apart(host: str, local: bool) -> None:
    assert is_local(host) is local


# ---------------------------------------------------------------- who may have one, and which wins


def test_the_newest_record_of_a_known_key_is_kept() -> None:
    held = Records(RecordPorts(BOB, NETWORK, verify, naming(ALICE)))
    first, second = record(ALICE, 1), record(ALICE, 2)

    assert [held.offer(each.encoded).taken for each in (first, first, second, first)] == [
        Taken.NEW,
        Taken.KNOWN,
        Taken.NEW,
        Taken.OLDER,
    ]
    assert held.records == {ALICE.public: second}
    assert held.counters == {"new": 2, "known": 1, "older": 1}


def test_an_address_never_admits_a_key_and_a_stranger_costs_no_verification() -> None:
    stranger = Someone(9)
    verified: list[PeerKey] = []

    def counting(key: PeerKey, data: bytes, signature: bytes) -> bool:
        verified.append(key)
        return verify(key, data, signature)

    held = Records(RecordPorts(BOB, NETWORK, counting, naming(ALICE)))

    assert held.offer(record(stranger).encoded) == (Taken.REFUSED, "unknown_key")
    assert judge(held, announce(stranger, record(stranger))) is Verdict.IGNORE
    assert (dict(held.records), verified) == ({}, [])


def test_forged_foreign_and_broken_records_are_refused_by_name() -> None:
    held = records()
    good = record(ALICE)

    assert held.offer(good.encoded[:-1] + bytes([good.encoded[-1] ^ 1])).taken is Taken.BAD_SIGNATURE
    assert held.offer(record(ALICE, network=bytes(32)).encoded).taken is Taken.OTHER_NETWORK
    assert held.offer(b"junk").taken is Taken.MALFORMED
    assert dict(held.records) == {}


def test_two_records_with_one_sequence_are_proof_and_all_nodes_settle_on_the_same_one() -> None:
    one, two, three = (
        record(ALICE, 5, replace(PUBLIC, peer_id=name, endpoints=(Endpoint(name, 1),)))
        for name in ("one", "two", "three")
    )
    orders = []
    for first, second in ((one, two), (two, one)):
        held = records()
        assert take(held, announce(ALICE, first)) is Verdict.ACCEPT
        contradiction = announce(ALICE, second)
        assert take(held, contradiction) is Verdict.RELAY
        assert contradiction.commands == [Located(ALICE.public, held.records[ALICE.public].endpoints)]
        assert take(held, announce(ALICE, three)) is Verdict.IGNORE
        assert [{pair[0].encoded, pair[1].encoded} for pair in held.proofs] == [{one.encoded, two.encoded}]
        assert held.counters["equivocation"] == 1
        orders.append(held.records[ALICE.public])
    assert orders == [min(one, two, key=lambda each: each.encoded)] * 2

    assert held.offer(record(ALICE, 6).encoded).taken is Taken.NEW


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.handlers.records.MAX_RECORDS", 2)
    monkeypatch.setattr("zmesh.handlers.records.MAX_PROOFS", 1)
    held = records()

    assert [held.offer(record(each).encoded).taken for each in (ALICE, BOB, CAROL)] == [
        Taken.NEW,
        Taken.NEW,
        Taken.FULL,
    ]
    for each in (ALICE, BOB):
        assert held.offer(record(each, 1, replace(PUBLIC, peer_id="other")).encoded).taken is Taken.EQUIVOCATION
    assert [pair[0].key for pair in held.proofs] == [BOB.public]
    assert held.offer(record(ALICE, 2).encoded).taken is Taken.NEW, "those who are known may still move"


def test_an_answer_holds_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.handlers.answers.MAX_ANSWER", 1)
    held = records()
    for each in (ALICE, BOB):
        held.offer(record(each).encoded)
    question = CAROL.says(MessageType.PEER_DISCOVERY, {"known": []}, to=BOB.public)
    take(held, question)

    (answer,) = question.commands
    assert isinstance(answer, SendDirect)
    assert (len(answer.payload["records"]), answer.payload["more"]) == (1, True)


def test_an_announcement_carries_a_record_that_its_author_checked() -> None:
    held = records()

    forged = replace(record(CAROL), encoded=record(CAROL).encoded[:-64] + bytes(64))
    assert judge(held, announce(ALICE, forged)) is Verdict.REJECT
    assert judge(held, announce(ALICE, record(ALICE, network=bytes(32)))) is Verdict.REJECT
    assert judge(held, ALICE.says(MessageType.PEER_ANNOUNCE, {"record": b"junk"})) is Verdict.REJECT
    assert judge(held, ALICE.says(MessageType.PEER_ANNOUNCE, {})) is Verdict.REJECT

    twice = [announce(ALICE, record(ALICE)), announce(ALICE, record(ALICE))]
    assert [take(held, said) for said in twice] == [Verdict.ACCEPT, Verdict.ACCEPT]
    assert [said.commands for said in twice] == [[Located(ALICE.public, PUBLIC.endpoints)], []]


def test_local_addresses_are_taken_only_in_a_mesh_on_one_machine() -> None:
    loopback = Description("l", (Endpoint("127.0.0.1", 9090),))
    theirs = record(ALICE, 1, loopback)

    remote, local = records(own=PUBLIC), records(own=loopback)
    for held in (remote, local):
        held.wake(NOON)

    assert remote.offer(theirs.encoded).taken is Taken.LOCAL_ADDRESS
    assert judge(remote, announce(ALICE, theirs)) is Verdict.IGNORE
    assert local.offer(theirs.encoded).taken is Taken.NEW
    assert records(own=PUBLIC, allow_local=True).offer(theirs.encoded).taken is Taken.NEW
    assert records(own=loopback, allow_local=False).offer(theirs.encoded).taken is Taken.LOCAL_ADDRESS


# ---------------------------------------------------------------- how they spread


def test_a_record_without_an_address_moves_nobody() -> None:
    held, said = records(), announce(ALICE, record(ALICE, 1, Description("alice")))
    assert (take(held, said), said.commands) == (Verdict.ACCEPT, [])
    assert ALICE.public in held.records


def test_it_announces_at_once_then_every_ten_minutes_and_when_it_changes() -> None:
    held = records(own=PUBLIC, phase=0.5)

    announced = [at for at, commands in run(held, until=1300.0) if _announcements(commands)]
    assert announced == pytest.approx([0.0, 600.0, 1200.0])
    first = held.own

    held.describe(replace(PUBLIC, capabilities=("train", "aggregate")))
    held.describe(replace(PUBLIC, capabilities=("train", "aggregate")))
    changed = _announcements(held.wake(later(1301.0)))

    assert first is not None
    assert held.own is not None
    assert changed == [held.own]
    assert held.own.capabilities == ("train", "aggregate")
    assert held.own.sequence > first.sequence
    assert verify_record(held.own, verify)
    assert _announcements(held.wake(later(1302.0))) == []


def test_who_moves_announces_the_same_from_another_place() -> None:
    held = records(own=PUBLIC)
    held.wake(NOON)
    held.move((Endpoint("203.0.113.8", 9090),))
    held.move((Endpoint("203.0.113.8", 9090),))
    (moved,) = _announcements(held.wake(later(1.0)))
    assert (moved.endpoints, moved.capabilities) == ((Endpoint("203.0.113.8", 9090),), PUBLIC.capabilities)
    listener = records()
    listener.move(PUBLIC.endpoints)
    assert _announcements(listener.wake(NOON)) == []


def test_a_record_from_a_former_life_with_a_faster_clock_is_outbid() -> None:
    held = records(own=PUBLIC)
    held.wake(NOON)
    former = record(BOB, NOON.wall_ms + 10_000)

    assert held.offer(former.encoded).taken is Taken.NEW
    announced = _announcements(held.wake(later(1.0)))

    assert [each.sequence for each in announced] == [former.sequence + 1]


def test_whose_clock_was_set_back_is_told_what_it_has_to_outbid() -> None:
    """Or nobody would take its record until the clock is there again."""
    corrected, other = having_asked(records(CAROL, own=PUBLIC)), records(BOB)
    former = record(CAROL, NOON.wall_ms + 600_000)
    other.offer(former.encoded)
    other.wake(NOON)

    question = CAROL.says(MessageType.PEER_DISCOVERY, corrected.question().payload)
    take(other, question)
    (answer,) = question.commands
    assert isinstance(answer, SendDirect)
    take(corrected, BOB.says(answer.kind, answer.payload, to=CAROL.public))
    (own,) = _announcements(corrected.wake(later(1.0)))
    assert own.sequence == former.sequence + 1


def test_a_newcomer_asks_and_is_told_what_it_lacks() -> None:
    newcomer, settled = records(CAROL, own=replace(PUBLIC, peer_id="carol")), records(BOB, own=PUBLIC)
    settled.wake(NOON)
    settled.offer(record(ALICE, 3).encoded)
    asked = [at for at, commands in run(newcomer, until=40.0) if _questions(commands)]
    assert asked == [1.0, 5.0, 30.0]

    question = CAROL.says(MessageType.PEER_DISCOVERY, newcomer.question().payload)
    assert take(settled, question) is Verdict.ACCEPT
    (answer,) = question.commands
    assert isinstance(answer, SendDirect)
    assert answer.recipient == CAROL.public
    reply = BOB.says(answer.kind, answer.payload, to=CAROL.public)
    assert take(newcomer, reply) is Verdict.ACCEPT

    assert set(newcomer.records) == {ALICE.public, BOB.public, CAROL.public}
    assert {command.key for command in reply.commands if isinstance(command, Located)} == {
        ALICE.public,
        BOB.public,
    }
    again = CAROL.says(MessageType.PEER_DISCOVERY, newcomer.question().payload, later(60))
    assert take(settled, again, later(60)) is Verdict.ACCEPT
    assert again.commands == []


def test_an_answer_is_for_one_and_nobody_gossips_one() -> None:
    handler, answer = having_asked(records()), {"records": [record(CAROL).encoded]}
    assert take(handler, ALICE.says(MessageType.PEER_DISCOVERY, answer)) is Verdict.REJECT
    assert take(handler, ALICE.says(MessageType.PEER_DISCOVERY, answer, to=BOB.public)) is Verdict.ACCEPT
    assert list(handler.records) == [CAROL.public]


@pytest.mark.parametrize("of", [ALICE, CAROL])
def test_an_answer_that_no_honest_peer_sends_costs_few_verifications(of: Someone) -> None:
    asked: list[bytes] = []

    def counted(key: PeerKey, data: bytes, signature: bytes) -> bool:
        asked.append(key)
        return verify(key, data, signature)

    handler = having_asked(Records(RecordPorts(BOB, NETWORK, counted, naming(ALICE, CAROL))))
    # Its own, newer and newer; or somebody else's, which it cannot sign.
    made = [record(of, sequence).encoded for sequence in range(1, 101)]
    if of is not ALICE:
        made = [encoded[:-64] + bytes(64) for encoded in made]
    take(handler, ALICE.says(MessageType.PEER_DISCOVERY, {"records": made}, to=BOB.public))

    assert 1 <= len(asked) <= 2


def test_one_account_is_answered_once_a_second() -> None:
    held = records(own=PUBLIC)
    held.wake(NOON)
    commands = []
    for at in (0.0, 0.5, 1.0):
        question = CAROL.says(MessageType.PEER_DISCOVERY, {"known": []})
        take(held, question, later(at))
        commands.append(len(question.commands))
    assert commands == [1, 0, 1]


def test_about_four_of_a_large_mesh_answer_and_between_them_they_tell_everything() -> None:
    crowd = [Someone(number) for number in range(1, 101)]
    known = naming(*crowd)
    asker = Records(RecordPorts(Someone(200), NETWORK, verify, known))
    everything = [record(each) for each in crowd]
    answers: list[Any] = []
    question = Someone(200).says(MessageType.PEER_DISCOVERY, {"known": []})
    for each in crowd:
        held = Records(RecordPorts(each, NETWORK, lambda *_: True, known))
        for one in everything:
            held.offer(one.encoded)
        answers += held.received(question.envelope, question.sender, question.payload, NOON)

    answers = [answer for answer in answers if isinstance(answer, SendDirect)]
    assert 1 <= len(answers) <= 12
    assert all(len(wire.encode_payload(answer.payload)) <= 49 * 1024 for answer in answers)
    for answer in answers:
        for encoded in answer.payload["records"]:
            asker.offer(encoded)
    assert set(asker.records) == {each.public for each in crowd}


def test_an_answer_that_says_there_is_more_is_followed_by_another_question() -> None:
    held = records(CAROL)
    held.wake(NOON)
    held.wake(later(40.0))
    calm = held.deadline

    more = ALICE.says(MessageType.PEER_DISCOVERY, {"records": [record(BOB).encoded], "more": True}, to=CAROL.public)
    assert take(held, more, later(41.0)) is Verdict.ACCEPT

    assert held.deadline == pytest.approx(NOON.mono + 42.0)
    assert held.deadline != calm
    assert _questions(held.wake(later(42.0)))


def test_a_new_record_of_its_own_is_due_at_once_whatever_else_is_to_be_done() -> None:
    held = records(CAROL, PUBLIC)
    held.wake(NOON)
    held.wake(later(40.0))
    held.describe(replace(PUBLIC, capabilities=("aggregate",)))
    more = ALICE.says(MessageType.PEER_DISCOVERY, {"records": [record(BOB).encoded], "more": True}, to=CAROL.public)
    assert take(held, more, later(41.0)) is Verdict.ACCEPT
    assert held.deadline <= NOON.mono

    (told,) = held.wake(later(41.0))
    assert isinstance(told, Broadcast)
    assert decode_record(told.payload["record"]).capabilities == ("aggregate",)


def test_who_was_not_asked_or_tells_of_itself_alone_makes_nobody_ask() -> None:
    held = records(CAROL)
    held.wake(NOON)
    held.wake(later(40.0))
    calm = held.deadline
    for at, of in ((41.0, ALICE), (60.0, BOB)):
        payload = {"records": [record(of, int(at)).encoded], "more": True}
        assert take(held, ALICE.says(MessageType.PEER_DISCOVERY, payload, to=CAROL.public), later(at)) is Verdict.ACCEPT
        assert held.deadline == calm, (at, of)


def test_answers_lead_to_a_bounded_number_of_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.handlers.questions.MAX_FOLLOW_UPS", 3)
    held = records(CAROL)
    held.wake(NOON)
    held.wake(later(40.0))
    asked = 0
    for at in range(41, 61):
        payload = {"records": [record(BOB, at).encoded], "more": True}
        take(held, ALICE.says(MessageType.PEER_DISCOVERY, payload, to=CAROL.public), later(at))
        asked += len(_questions(held.wake(later(at + 1.0))))
    assert asked == 3


def test_who_belongs_of_late_is_asked_for_once() -> None:
    held = records(CAROL)
    held.ask_soon(NOON)
    held.wake(NOON)
    held.wake(later(40.0))
    for _ in range(3):
        held.ask_soon(later(50.0))
    assert held.deadline == NOON.mono + 51.0
    assert len(_questions(held.wake(later(51.0)))) == 1
    assert held.deadline is not None
    assert held.deadline > NOON.mono + 500


def test_a_mesh_larger_than_one_question_is_asked_about_range_by_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("zmesh.handlers.questions.MAX_KNOWN", 2)
    held = records(CAROL, own=None)
    everybody = sorted([ALICE, BOB, CAROL], key=lambda each: each.public)
    for each in everybody:
        held.offer(record(each).encoded)

    first, second, third = (held.question().payload for _ in range(3))

    assert [key for key, _ in first["known"]] == [each.public for each in everybody[:2]]
    assert (first.get("after"), first["until"]) == (None, everybody[1].public)
    assert [key for key, _ in second["known"]] == [everybody[2].public]
    assert (second["after"], second.get("until")) == (everybody[1].public, None)
    assert third == first


@pytest.mark.parametrize(
    "payload,verdict",
    [
        ({}, Verdict.ACCEPT),
        ({"known": [[bytes(32), 1]], "unheard": "of"}, Verdict.ACCEPT),
        ({"known": [[bytes(31), 1]]}, Verdict.REJECT),
        ({"known": [[bytes(32), -1]]}, Verdict.REJECT),
        ({"known": {"a": 1}}, Verdict.REJECT),
        ({"records": ["text"]}, Verdict.REJECT),
        ({"records": [b"x"] * 257}, Verdict.REJECT),
    ],
)
def test_a_question_or_answer_must_fit(payload: dict[str, Any], verdict: Verdict) -> None:
    assert take(records(), ALICE.says(MessageType.PEER_DISCOVERY, payload)) is verdict


# ---------------------------------------------------------------- who judges, and who is told


def test_the_registry_is_asked_before_any_signature_and_says_why_not() -> None:
    asked: list[PeerKey] = []

    def never(key: PeerKey, data: bytes, signature: bytes) -> bool:
        raise AssertionError("a stranger cost a verification")

    def refuse(what: Record) -> str:
        asked.append(what.key)
        return "unknown_account"

    held = Records(RecordPorts(BOB, NETWORK, never, refuse))
    assert held.offer(record(ALICE).encoded) == (Taken.REFUSED, "unknown_account")
    assert judge(held, announce(ALICE, record(ALICE))) is Verdict.IGNORE
    assert held.post(record(ALICE).encoded) == (Taken.REFUSED, "unknown_account")
    assert asked == [ALICE.public] * 3
    assert (dict(held.records), held.counters) == ({}, {"unknown_account": 3})


@pytest.mark.parametrize("why", ["forged", "not_held", "malformed"])
def test_whoever_passes_on_what_is_false_for_everybody_is_to_blame(why: str) -> None:
    held = having_asked(Records(RecordPorts(BOB, NETWORK, verify, lambda _record: why)))
    assert judge(held, announce(ALICE, record(ALICE))) is Verdict.REJECT
    answer = {"records": [record(each).encoded for each in (ALICE, CAROL)]}
    take(held, ALICE.says(MessageType.PEER_DISCOVERY, answer, to=BOB.public))
    assert held.counters == {why: 2}, "the rest of the answer is not looked at"


def test_the_membership_is_told_of_what_became_the_newest() -> None:
    told: list[Record] = []

    def took(taken: Record) -> bool:
        told.append(taken)
        return False

    held = Records(RecordPorts(BOB, NETWORK, verify, lambda _record: None, took))
    first, second, other = record(ALICE), record(ALICE, 2), record(ALICE, 2, replace(PUBLIC, peer_id="other"))
    for each in (first, first, second, first):
        held.offer(each.encoded)
    assert told == [first, second]
    held.offer(other.encoded)
    assert told == [first, second, *([other] if other.encoded < second.encoded else [])]


def test_who_belongs_no_more_has_no_record_and_may_come_back() -> None:
    held = records(own=PUBLIC)
    held.wake(NOON)
    for each in (ALICE, CAROL):
        held.offer(record(each).encoded)
    held.retain({ALICE.public})
    assert set(held.records) == {ALICE.public, BOB.public}
    assert held.offer(record(CAROL).encoded).taken is Taken.NEW


def test_a_node_that_joins_another_mesh_starts_anew_there() -> None:
    chain = wire.network_id("handlers", bytes(32))
    held = records(own=PUBLIC)
    held.wake(NOON)
    held.offer(record(ALICE).encoded)

    held.join(chain)
    (own,) = _announcements(held.wake(later(1.0)))
    assert (own.network, dict(held.records)) == (chain, {BOB.public: own})
    assert held.deadline == pytest.approx(NOON.mono + 2.0)
    assert held.offer(record(ALICE, 2).encoded).taken is Taken.OTHER_NETWORK
    assert held.offer(record(ALICE, network=chain).encoded).taken is Taken.NEW
    held.join(chain)
    assert set(held.records) == {ALICE.public, BOB.public}


def test_records_survive_a_restart() -> None:
    before = records(own=PUBLIC)
    before.wake(NOON)
    for each in (ALICE, CAROL):
        before.offer(record(each).encoded)

    after = Records(RecordPorts(BOB, NETWORK, verify, naming(ALICE)))
    located = after.restore(before.export())
    assert located == [Located(key, PUBLIC.endpoints) for key in (BOB.public, ALICE.public)]
    assert after.own == before.own
    after.describe(PUBLIC)
    after.wake(NOON)
    assert after.own is not None
    assert before.own is not None
    assert after.own.sequence == before.own.sequence + 1


def test_addresses_on_one_machine_survive_a_restart_too() -> None:
    local = Description("l", (Endpoint("127.0.0.1", 9090),))
    before = records(own=local)
    before.wake(NOON)
    before.offer(record(ALICE, 1, local).encoded)
    after = records()
    after.restore(before.export())
    assert set(after.records) == {ALICE.public, BOB.public}


@given(st.one_of(st.binary(), st.recursive(st.none() | st.binary(), st.lists).map(msgpack.packb)))
def test_a_disk_may_hold_anything(saved: bytes) -> None:
    held = records()
    try:
        assert held.restore(saved) == []
    except WireError as error:
        assert error.reason is DropReason.MALFORMED
    assert dict(held.records) == {}


def _announcements(commands: Any) -> list[Record]:
    return [
        decode_record(command.payload["record"])
        for command in commands
        if isinstance(command, Broadcast) and command.kind is MessageType.PEER_ANNOUNCE
    ]


def _questions(commands: Any) -> list[Broadcast]:
    return [
        command for command in commands if isinstance(command, Broadcast) and command.kind is MessageType.PEER_DISCOVERY
    ]
