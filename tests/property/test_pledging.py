"""Any sequence of votes, restarts, crashes and failing disks: a peer never hears a node contradict itself."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.core_support import ME, later
from tests.unit.pledging_support import Disk, Life, PowerCutError
from zmesh import NotPledgedError, SelfHarmError
from zmesh.core import wire
from zmesh.core.types import Member, Verdict
from zmesh.handlers import Votes
from zmesh.handlers import votes as module

MOST = 3
PROPOSALS = st.sampled_from("pqrstuv")
ACCOUNTS = st.sampled_from([ME.member, ME.member._replace(account="another")])


class Voting(RuleBasedStateMachine):
    """One key of two accounts, and a peer that hears everything and forgets as the protocol does."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = patch.multiple(module, VOTES_PER_ACCOUNT=MOST, PROPOSALS_PER_ACCOUNT=MOST)
        self.limits.start()
        self.loop = asyncio.new_event_loop()
        self.disk = Disk()
        self.peer = Votes(list)
        self.at = 0.0
        self.cuts = 0

    @initialize(member=ACCOUNTS)
    def begin(self, member: Member) -> None:
        self.member = member
        self.life = Life(self.disk, 1, member)

    def say(self, proposal: str, word: int, is_vote: bool) -> bool:
        """Whether it left."""
        self.life.now = later(self.at)
        before = len(self.life.sent)
        saying = self.life.vote(word, proposal) if is_vote else self.life.propose(proposal, word)
        try:
            self.loop.run_until_complete(saying)
        except (SelfHarmError, NotPledgedError):
            assert len(self.life.sent) == before
        for envelope in self.life.sent[before:]:
            payload = wire.decode_payload(envelope.payload)
            verdict = self.peer.validate(envelope, self.member, payload, self.life.now)
            assert verdict in {Verdict.ACCEPT, Verdict.RELAY}
            self.peer.received(envelope, self.member, payload, self.life.now)
        return len(self.life.sent) > before

    @rule(proposal=PROPOSALS, word=st.integers(0, 1), is_vote=st.booleans())
    def speak(self, proposal: str, word: int, is_vote: bool) -> None:
        if self.say(proposal, word, is_vote):
            assert self.say(proposal, word, is_vote), "what left may be repeated"

    @rule(proposal=PROPOSALS, word=st.integers(0, 1), fault=st.sampled_from(["full", "unsettled"]))
    def speak_to_a_failing_disk(self, proposal: str, word: int, fault: str) -> None:
        known = self.disk.content
        self.disk.fault = fault
        if not self.say(proposal, word, True):
            assert self.disk.content == known
        self.disk.fault = ""

    @precondition(lambda self: self.cuts < MOST)
    @rule(proposal=PROPOSALS, word=st.integers(0, 1))
    def speak_as_the_power_fails(self, proposal: str, word: int) -> None:
        self.disk.fault = "power"
        try:
            self.say(proposal, word, True)
        except PowerCutError:
            self.cuts += 1
        self.disk.fault = ""
        self.restart(self.member)

    @rule(member=ACCOUNTS)
    def restart(self, member: Member) -> None:
        self.member = member
        self.life = Life(self.disk, 2, member)

    @rule(minutes=st.sampled_from([1, 5, 11, 25]))
    def wait(self, minutes: int) -> None:
        self.at += 60 * minutes

    @invariant()
    def nobody_has_contradicted_itself(self) -> None:
        for proposal in self.peer.open:
            assert self.peer.tally(proposal).equivocators == ()
            assert not any(each.contradicted for each in self.peer.proposals(proposal))
        for ledger in (self.peer._votes, self.peer._proposals):
            assert not any(ledger.has_flooded(account) for account in (ME.member.account, "another"))

    def teardown(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.limits.stop()


TestVoting = Voting.TestCase
TestVoting.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
