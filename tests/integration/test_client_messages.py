"""Clients on real sockets: what one sends is what the other's handler gets, and the sender learns how it went."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract.peers import settle
from tests.support import Inbox, card, client, counted, engine, linked, mesh, until
from zmesh import (
    ConfigError,
    FLRoundAnnouncement,
    Identity,
    MeshMessage,
    MeshNetworkClient,
    MessageType,
    NotRunningError,
    PayloadError,
    PeerInfo,
    SelfHarmError,
    SendResult,
)
from zmesh.core.types import Frames, PeerKey
from zmesh.core.wire import ACK_CODE, ENVELOPE, decode_body

LONGEST = 64 * 1024
"""Bytes of an encoded payload."""


async def test_gossip_reaches_everybody_once_signed_by_its_author() -> None:
    async with mesh("a", "b", "c") as (a, b, c):
        heard = [Inbox(one, MessageType.GOSSIP) for one in (b, c)]
        own = Inbox(a, MessageType.GOSSIP)
        sent = await a.broadcast(MessageType.GOSSIP, {"custom": "data", "blob": b"\x00\xff", "n": [1, 2.5, None]})
        for inbox in heard:
            message = await inbox.next()
            assert message == MeshMessage(
                message_id=sent.message_id,
                message_type=MessageType.GOSSIP,
                sender_id="a",
                timestamp=sent.timestamp,
                payload={"custom": "data", "blob": b"\x00\xff", "n": [1, 2.5, None]},
                signature=sent.signature,
                ttl=sent.ttl,
                sender_key=a.public_key,
                account_id=a.public_key,
                recipient=None,
            )
        assert abs(sent.timestamp - time.time()) < 60
        assert own.is_empty
        assert all(inbox.is_empty for inbox in heard)
        assert all(sent.message_id in one.seen_messages for one in (a, b, c))


async def test_a_handler_finds_its_message_seen_and_counted_although_it_came_before_the_rest_was_done() -> None:
    async with mesh("a", "b") as (a, b):
        found: list[tuple[bool, Mapping[str, int]]] = []
        votes = b.handlers.votes
        b.register_handler(
            MessageType.CONSENSUS_VOTE,
            lambda vote: found.append((vote.message_id in b.seen_messages, votes.tally("p").counts)),
        )
        await a.broadcast(MessageType.CONSENSUS_VOTE, {"proposal_id": "p", "choice": "yes"})
        await until(lambda: found != [], b)
        assert found == [(True, {"yes": 1})]


async def test_a_ttl_of_one_stops_after_one_hop() -> None:
    """In a line, the far end hears of it only by repair, which is blind to the ttl of the copy."""
    async with mesh("a", "b") as (a, b):
        inbox = Inbox(b, MessageType.GOSSIP)
        sent = await a.broadcast(MessageType.GOSSIP, {}, ttl=1)
        assert sent.ttl == (await inbox.next()).ttl == 1
        with pytest.raises(PayloadError, match="ttl must be 1 to 255 hops, or None to let the mesh decide, not 256"):
            await a.broadcast(MessageType.GOSSIP, {}, ttl=256)


async def test_a_message_crosses_a_line_of_three() -> None:
    """The two ends do not know each other's address; the one in the middle relays."""
    a, b, c = (client(name) for name in "abc")
    async with a, b, c:
        heard = Inbox(c, MessageType.GOSSIP)
        for one, other in ((a, b), (b, a), (b, c), (c, b)):
            one.peers[other.peer_id] = card(other)
        a.peers["c"] = card(c, multiaddr="")
        c.peers["a"] = card(a, multiaddr="")
        await until(lambda: all(peer.is_linked for peer in b.peers.values()), a, b, c)
        await a.broadcast(MessageType.GOSSIP, {"from": "one end"})
        message = await heard.next()
        assert (message.sender_id, message.payload) == ("a", {"from": "one end"})


async def test_a_round_is_announced_with_its_deadline_in_absolute_time() -> None:
    async with mesh("coordinator", "b") as (coordinator, b):
        inbox = Inbox(b, MessageType.FL_ROUND_START)
        before = time.time()
        await coordinator.announce_fl_round(
            round_id="round_001",
            dataset_name="belize_corpus",
            target_participants=10,
            deadline=3600,
            min_stake=1000,
            reward_pool=50000,
            model_hash="Qm",
            weights=b"\x01\x02",
        )
        message = await inbox.next()
        round_ = FLRoundAnnouncement.from_dict(message.payload)
        assert round_.deadline is not None
        assert before + 3600 <= round_.deadline <= time.time() + 3600
        assert round_ == FLRoundAnnouncement(
            round_id="round_001",
            dataset_name="belize_corpus",
            target_participants=10,
            deadline=round_.deadline,
            deadline_seconds=3600,
            reward_pool=50000,
            min_stake=1000,
            model_hash="Qm",
        )
        assert message.payload["weights"] == b"\x01\x02"
        (known,) = b.handlers.rounds.named("round_001")
        assert (known.coordinator, known.deadline) == (coordinator.public_key, round_.deadline)


@pytest.mark.parametrize("name_it", ["peer_id", "public_key", "account"])
async def test_a_direct_message_reaches_one_peer_by_any_of_its_names(name_it: str) -> None:
    async with mesh("a", "b", "c") as (a, b, c):
        inbox, others = Inbox(b, MessageType.MODEL_DELTA_TRANSFER), Inbox(c, MessageType.MODEL_DELTA_TRANSFER)
        name = {"peer_id": "b", "public_key": b.public_key, "account": a.peers["b"].account_id}[name_it]
        result = await a.send_model_delta(name, "round_001", "Qm", 95.5, delta=b"\x01")
        assert result is SendResult.DELIVERED
        message = await inbox.next()
        assert (message.sender_id, message.recipient, message.ttl) == ("a", b.public_key, 0)
        assert message.payload == {
            "round_id": "round_001",
            "model_cid": "Qm",
            "quality_score": 95.5,
            "delta": b"\x01",
        }
        assert inbox.is_empty
        assert others.is_empty


async def test_a_direct_message_without_a_handler_is_delivered_and_counted() -> None:
    async with mesh("a", "b") as (a, b):
        assert counted(b, "handler", "unhandled") == 0, "what zmesh says of its own accord needs no handler"
        assert await a.send("b", MessageType.GOSSIP, {}) is SendResult.DELIVERED
        assert counted(b, "handler", "unhandled") == 1


async def test_sending_to_nobody_known_is_unreachable() -> None:
    async with client("a") as a:
        assert await a.send("nobody", MessageType.GOSSIP, {}) is SendResult.UNREACHABLE


async def test_sending_to_a_peer_that_is_not_there_is_unreachable_within_its_timeout() -> None:
    async with client("a") as a:
        absent = client("b")
        a.peers["b"] = card(absent, multiaddr="/ip4/127.0.0.1/tcp/9")
        started = time.monotonic()
        assert await a.send("b", MessageType.GOSSIP, {}, timeout=0.3) is SendResult.UNREACHABLE
        assert 0.25 < time.monotonic() - started < 5


async def test_an_acknowledgement_that_never_comes_is_a_timeout() -> None:
    """The recipient is linked, and then stands still: what was sent may or may not have been taken."""
    async with mesh("a", "b") as (a, b):
        node, still = b._running().node, engine(b)
        node.engine = SimpleNamespace(handle_all=lambda events, now, *, ask: [], finish=lambda now: [])  # type: ignore[assignment]
        assert await a.send("b", MessageType.GOSSIP, {}, timeout=0.4) is SendResult.TIMEOUT
        node.engine = still
        assert await a.send("b", MessageType.GOSSIP, {})


async def test_a_lost_acknowledgement_is_sent_again_while_the_handler_runs_once() -> None:
    """The recipient's node takes its first ACK for sent, and it never leaves."""
    async with mesh("a", "b") as (a, b):
        inbox = Inbox(b, MessageType.MODEL_DELTA_TRANSFER)
        transport = b._running().node.transport
        send = transport.send
        acks: list[Frames] = []

        def lose_the_first_ack(key: PeerKey, frames: Frames, *, gossip: bool) -> bool:
            if frames[0][0] == ENVELOPE and decode_body(frames[1]).kind == ACK_CODE:
                acks.append(frames)
                if len(acks) == 1:
                    return True
            return send(key, frames, gossip=gossip)

        transport.send = lose_the_first_ack  # type: ignore[method-assign]
        assert await a.send_model_delta("b", "round_001", "Qm", 95.5) is SendResult.DELIVERED
        message = await inbox.next()
        # Two, or on a machine that stands still more: each repetition is answered with the very same bytes.
        assert acks[:2] == [acks[0]] * 2
        answered = decode_body(acks[0][1])
        assert (answered.correlation, answered.recipient) == (
            bytes.fromhex(message.message_id),
            bytes.fromhex(a.public_key),
        )
        await settle()
        assert inbox.is_empty
        assert a.peers["b"].reputation == b.peers["a"].reputation == 100


async def test_a_name_that_two_peers_claim_is_ambiguous() -> None:
    """One peer calls itself by the account of another: neither is guessed."""
    async with client("a") as a:
        b, c = client("b"), client("c")
        a.peers["b"] = card(b, account_id="5Grw")
        a.peers["5Grw"] = card(c, peer_id="5Grw", account_id="5Other")
        assert await a.send("5Grw", MessageType.GOSSIP, {}, timeout=0.2) is SendResult.AMBIGUOUS


async def test_a_direct_payload_over_the_limit_is_too_large_and_gossip_says_the_limit() -> None:
    async with mesh("a", "b") as (a, b):
        inbox = Inbox(b, MessageType.GOSSIP)
        fits, over = {"x": bytes(LONGEST - 7)}, {"x": bytes(LONGEST)}
        assert await a.send("b", MessageType.GOSSIP, over) is SendResult.TOO_LARGE
        with pytest.raises(PayloadError, match="65536") as refused:
            await a.broadcast(MessageType.GOSSIP, over)
        assert "\n" not in str(refused.value)
        with pytest.raises(PayloadError, match="65536"):
            a.create_message(MessageType.GOSSIP, over)
        await a.broadcast(MessageType.GOSSIP, fits)
        assert (await inbox.next()).payload == fits
        assert await a.send("b", MessageType.GOSSIP, fits) is SendResult.DELIVERED
        assert (await inbox.next()).payload == fits


@pytest.mark.parametrize("payload", [{"x": object()}, {"x": 2**80}, {"x": {1, 2}}, {1: "x"}, ["x"]])
async def test_a_payload_that_cannot_travel_is_an_error_at_the_caller(payload: object) -> None:
    async with mesh("a", "b") as (a, b):
        inbox = Inbox(b, MessageType.GOSSIP)
        before = len(a.seen_messages)
        with pytest.raises(PayloadError):
            await a.broadcast(MessageType.GOSSIP, payload)  # type: ignore[arg-type]
        with pytest.raises(PayloadError):
            await a.send("b", MessageType.GOSSIP, payload)  # type: ignore[arg-type]
        assert len(a.seen_messages) == before
        await a.broadcast(MessageType.GOSSIP, {"still": "works"})
        assert (await inbox.next()).payload == {"still": "works"}


async def test_an_unknown_type_is_refused_with_those_there_are() -> None:
    nope: Any = "nope"
    said = f"message type must be one of {', '.join(MessageType)}, not 'nope'"
    async with client("a") as a:
        with pytest.raises(ConfigError) as broadcast:
            await a.broadcast(nope, {})
        with pytest.raises(ConfigError) as send:
            await a.send("nobody", nope, {})
        with pytest.raises(ConfigError) as create:
            a.create_message(nope, {})
        with pytest.raises(ConfigError) as register:
            a.register_handler(nope, print)
        assert {str(refused.value) for refused in (broadcast, send, create, register)} == {said}
        assert (await a.broadcast("gossip", {})).message_type is MessageType.GOSSIP  # type: ignore[arg-type]


async def test_waiting_for_fewer_than_no_links_is_refused() -> None:
    async with client("a") as a:
        await a.wait_for_links(0)
        with pytest.raises(ConfigError) as refused:
            await a.wait_for_links(-1)
    assert str(refused.value) == "count must be a number of peers, 0 or more, not -1"


async def test_a_payload_that_every_peer_would_reject_is_refused_at_its_author() -> None:
    async with client("a") as a:
        with pytest.raises(
            PayloadError, match="reject this fl_round_start: its field 'round_id' is 7 and must be text"
        ):
            await a.broadcast(MessageType.FL_ROUND_START, {"round_id": 7})
        with pytest.raises(PayloadError, match="its field 'reward_pool' is -1 and must be a number"):
            await a.announce_fl_round("r", "corpus", 1, deadline=60, reward_pool=-1)
        for deadline in (-5, float("nan"), "soon"):
            with pytest.raises(PayloadError) as refused:
                await a.announce_fl_round("r", "corpus", 1, deadline=deadline)  # type: ignore[arg-type]
            assert str(refused.value) == (f"deadline must be a number of seconds from now, 0 or more, not {deadline!r}")


async def test_a_direct_message_that_breaks_its_type_is_refused_at_its_author_and_costs_no_reputation() -> None:
    async with mesh("a", "b") as (a, b):
        inbox = Inbox(b, MessageType.MODEL_DELTA_TRANSFER)
        for score in (101, -1, float("nan")):
            with pytest.raises(PayloadError, match="model_delta_transfer: its field 'quality_score'"):
                await a.send_model_delta("b", "round_001", "Qm", quality_score=score)
        assert await a.send_model_delta("b", "round_001", "Qm", quality_score=100)
        assert (await inbox.next()).payload["quality_score"] == 100
        assert not await a.send_model_delta("nobody", "round_001", "Qm", quality_score=100)
        ended = {line for line in a.metrics().splitlines() if line.startswith("zmesh_direct_sends_total")}
        results = {"delivered": 1, "unreachable": 1}
        assert ended == {
            f'zmesh_direct_sends_total{{result="{one.value}"}} {results.get(one.value, 0)}' for one in SendResult
        }
        assert inbox.is_empty
        assert b.peers["a"].reputation == 100


def flow(of: MeshNetworkClient, kind: MessageType) -> dict[str, int]:
    """How many messages of a type a node sent and was given, as /metrics says."""
    found = re.findall(
        rf'^zmesh_messages_total\{{direction="(\w+)",type="{kind}"\}} (\d+)$', of.metrics(), re.MULTILINE
    )
    return {direction: int(count) for direction, count in found}


async def test_messages_are_counted_by_type_where_they_are_sent_and_where_they_arrive() -> None:
    """A message that its author is refused counts nowhere."""
    async with mesh("a", "b") as (a, b):
        inbox = Inbox(b, MessageType.GOSSIP, MessageType.MODEL_DELTA_TRANSFER)
        for n in range(3):
            await a.broadcast(MessageType.GOSSIP, {"n": n})
        assert await a.send_model_delta("b", "round_001", "Qm", quality_score=1)
        with pytest.raises(PayloadError):
            await a.send_model_delta("b", "round_001", "Qm", quality_score=101)
        await inbox.take(4)
        assert (flow(a, MessageType.GOSSIP), flow(b, MessageType.GOSSIP)) == (
            {"sent": 3, "delivered": 0},
            {"sent": 0, "delivered": 3},
        )
        assert flow(a, MessageType.MODEL_DELTA_TRANSFER) == {"sent": 1, "delivered": 0}
        assert flow(b, MessageType.MODEL_DELTA_TRANSFER) == {"sent": 0, "delivered": 1}
        assert flow(a, MessageType.PEER_ANNOUNCE)["sent"] >= 1, "what zmesh itself says counts, too"


async def test_an_impossible_timeout_is_refused() -> None:
    async with client("a") as a:
        for timeout in (0, -1, 111):
            with pytest.raises(ConfigError, match=f"timeout must be above 0 and at most 110 s, not {timeout} s"):
                await a.send("b", MessageType.GOSSIP, {}, timeout=timeout)


async def test_a_message_can_be_made_without_being_sent() -> None:
    async with mesh("a", "b") as (a, b):
        message = a.create_message(MessageType.FL_ROUND_START, {"round_id": "001"})
        assert (message.sender_id, message.payload, message.recipient) == ("a", {"round_id": "001"}, None)
        assert len(bytes.fromhex(message.signature)) == 64
        assert len(bytes.fromhex(message.message_id)) == 32
        assert message.message_id not in a.seen_messages
        assert MeshMessage.from_dict(message.to_dict()) == message
        direct = a.create_message(MessageType.GOSSIP, {}, recipient="b")
        assert direct.recipient == b.public_key
        with pytest.raises(ConfigError, match="recipient 'nobody' must name exactly one known peer, not 0"):
            a.create_message(MessageType.GOSSIP, {}, recipient="nobody")


async def test_a_client_that_does_not_run_says_so() -> None:
    idle = client("a")
    for sending in (idle.broadcast(MessageType.GOSSIP, {}), idle.send("b", MessageType.GOSSIP, {})):
        with pytest.raises(NotRunningError, match="a is not running"):
            await sending
    with pytest.raises(NotRunningError):
        idle.create_message(MessageType.GOSSIP, {})
    with pytest.raises(NotRunningError):
        await idle.discover_peers()
    assert (idle.health()["running"], len(idle.seen_messages), list(idle.seen_messages)) == (False, 0, [])


async def test_a_thousand_announcements_at_once_arrive_once_each() -> None:
    """A legitimate burst: the caller may be slowed down, nothing is lost, nobody is blamed."""
    async with mesh("a", "b", "c") as (a, b, c):
        heard = [Inbox(one, MessageType.FL_ROUND_START) for one in (b, c)]
        for number in range(1000):
            await a.announce_fl_round(f"round_{number}", "corpus", 10, 3600)
        for inbox in heard:
            ids = sorted(message.payload["round_id"] for message in await inbox.take(1000))
            assert ids == sorted(f"round_{number}" for number in range(1000))
        assert all(inbox.is_empty for inbox in heard)
        assert all(peer.reputation == 100 for one in (a, b, c) for peer in one.peers.values())


async def test_what_is_published_before_the_link_stands_arrives_when_it_does() -> None:
    a, b = client("a"), client("b")
    async with a, b:
        inbox = Inbox(b, MessageType.GOSSIP)
        await a.broadcast(MessageType.GOSSIP, {"early": True})
        a.peers["b"], b.peers["a"] = card(b), card(a)
        await linked(a, b)
        assert (await inbox.next()).payload == {"early": True}


def test_broadcast_and_create_message_have_aliases() -> None:
    assert MeshNetworkClient._broadcast_message is MeshNetworkClient.broadcast
    assert MeshNetworkClient._create_message is MeshNetworkClient.create_message


async def test_a_tally_takes_stake_and_the_right_to_vote_from_the_members_of_that_moment() -> None:
    async with mesh("a", "b") as (a, b):
        heard = Inbox(b, MessageType.CONSENSUS_VOTE)
        await a.broadcast(MessageType.CONSENSUS_VOTE, {"proposal_id": "p", "choice": "yes"})
        await heard.next()
        b.peers["a"] = card(a, stake_amount=77)
        assert b.handlers.votes.tally("p").stake == {"yes": 77}
        del b.peers["a"]
        assert b.handlers.votes.tally("p").counts == {}


async def test_a_vote_that_would_void_the_first_one_stays_here() -> None:
    async with mesh("a", "b") as (a, b):
        heard = Inbox(b, MessageType.CONSENSUS_VOTE)
        await a.broadcast(MessageType.CONSENSUS_VOTE, {"proposal_id": "p", "choice": "yes"})
        with pytest.raises(
            SelfHarmError, match="this consensus_vote would harm its author: its account has already voted 'yes'"
        ):
            await a.broadcast(MessageType.CONSENSUS_VOTE, {"proposal_id": "p", "choice": "no"})
        await a.broadcast(MessageType.CONSENSUS_VOTE, {"proposal_id": "q", "choice": "no"})
        assert [(await heard.next()).payload["proposal_id"] for _ in range(2)] == ["p", "q"]
        for node in (a, b):
            tally = node.handlers.votes.tally("p")
            assert (tally.counts, tally.equivocators) == ({"yes": 1}, ())


async def test_a_broadcast_that_waited_while_the_node_was_started_again_goes_out_in_its_next_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("zmesh.client.MAX_WAIT", 3.0)  # longer than a node takes to stop and to start
    async with mesh("a") as (a,):
        engine(a)._context.rates.clear_at = time.monotonic() + 60
        waiting = asyncio.create_task(a.broadcast(MessageType.GOSSIP, {"n": 1}))
        await asyncio.sleep(0)
        assert not waiting.done()
        await a.stop()
        await a.start()
        async with asyncio.timeout(20):
            message = await waiting
        assert message.message_id in a.seen_messages


async def test_an_author_sends_no_faster_than_others_take_what_it_sends() -> None:
    async with mesh("a", "b", author_rate=0.01, author_burst=100.0) as (a, b):
        heard = Inbox(b, MessageType.GOSSIP)
        large = [a.broadcast(MessageType.GOSSIP, {"n": n, "large": bytes(37 * 1024)}) for n in range(10)]
        sending = [asyncio.create_task(one) for one in large]
        # Of 90 that may come at once each takes 19, and what nodes say by themselves a few.
        assert sorted([(await heard.next()).payload["n"] for _ in range(4)]) == [0, 1, 2, 3]
        await settle()
        assert [one.done() for one in sending] == [True] * 4 + [False] * 6
        assert engine(a).clear_at > time.monotonic() + 60
        engine(a)._context.rates.clear_at = 0.0  # as if it were over
        sending.append(asyncio.create_task(a.broadcast(MessageType.GOSSIP, {"n": 10})))
        await sending[-1]
        assert sending[-1].result().message_id in a.seen_messages
        for one in sending[4:-1]:
            one.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


async def test_an_author_waits_longer_each_time_that_all_links_refuse_and_not_once_one_accepts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with mesh("a", "b", "c") as (a, b, c):
        heard = [Inbox(one, MessageType.GOSSIP) for one in (b, c)]
        transport = a._running()._transport
        refusing, send = {bytes.fromhex(b.public_key), bytes.fromhex(c.public_key)}, transport.send

        def send_unless_refusing(key: PeerKey, frames: Frames, *, gossip: bool) -> bool:
            return key not in refusing and send(key, frames, gossip=gossip)

        monkeypatch.setattr(transport, "send", send_unless_refusing)
        pauses = []
        for n in range(3):
            await a.broadcast(MessageType.GOSSIP, {"n": n})
            pauses.append(a._pause)
        refusing.remove(bytes.fromhex(b.public_key))
        await a.broadcast(MessageType.GOSSIP, {"n": 3})
        assert [*pauses, a._pause] == [0.001, 0.002, 0.004, 0.0]
        refusing.clear()
        for inbox in heard:
            assert sorted(message.payload["n"] for message in await inbox.take(4)) == [0, 1, 2, 3]


async def test_a_direct_send_is_counted_by_its_result_though_its_caller_gave_up_waiting() -> None:
    def unreachable() -> int:
        return int(
            re.findall(r'^zmesh_direct_sends_total\{result="unreachable"\} (\d+)$', a.metrics(), re.MULTILINE)[0]
        )

    async with client("a") as a:
        a.peers["gone"] = PeerInfo("gone", public_key=Identity.generate().public.hex())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await a.send("gone", MessageType.GOSSIP, {"n": 1}, timeout=0.1)
        assert unreachable() == 0
        await until(lambda: unreachable() == 1, a)
        assert await a.send("nobody", MessageType.GOSSIP, {"n": 2}) is SendResult.UNREACHABLE
        assert unreachable() == 2
