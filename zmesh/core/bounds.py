"""Every bound of the protocol, with its unit and the reason for its number.

Rules
 1. Constants in capitals are part of the wire: two nodes must agree on them, and PROTOCOL.md lists them.
 2. ``Bounds`` holds what a node may choose for itself; the defaults are meant for a mesh of 10 to 100 validators.
"""

from __future__ import annotations

from dataclasses import dataclass

# ---------------------------------------------------------------- agreed by all nodes

MAX_PAYLOAD = 64 * 1024
"""Bytes of an encoded payload. Announcements, votes and small deltas fit; bigger things are sent by reference."""
MAX_AROUND = 512
"""Bytes of a body besides its payload: the fields take under 200, the rest is room for later ones."""
MAX_BODY = MAX_PAYLOAD + MAX_AROUND
"""Bytes of a body."""
MAX_VALUES = 8192
"""Values of a payload, counting itself, its keys and everything nested: as many 64-bit floats fill it. A value may take
one byte on the wire, and takes its reader an object of 50 bytes or more."""
MAX_CONTROL = 40 * 1024
"""Bytes of a control frame: ``MAX_IDS`` ids and their framing."""
MAX_IDS = 2048
"""Ids in one IHAVE or IWANT: 32 KiB of ids, a frame that does not delay a message behind it."""
MAX_FRAME = 128 * 1024
"""Bytes of one transport frame, twice the largest body: the sockets themselves refuse anything larger."""
MAX_TTL = 255
"""Hops: one byte on the wire."""
PAST = 120.0
"""Seconds a message may be old: covers slow repair and honest clock error."""
AHEAD = 10.0
"""Seconds a timestamp or an epoch may lie in the future: NTP keeps honest clocks far closer."""
PAST_MS, AHEAD_MS = int(PAST * 1000), int(AHEAD * 1000)
"""The same in the unit of the wire."""
RETENTION = 130.0
"""Seconds that ids are remembered: ``PAST + AHEAD``, so that what is forgotten is already stale."""
MAX_DIRECT_TIMEOUT = 110.0
"""Seconds that a direct send may take: a later retry could arrive as STALE."""
MAX_ENDPOINTS = 8
"""Addresses of one peer: a record stays small and a dial stays short."""
MAX_NAME = 128
"""Bytes of a peer_id in UTF-8."""
MAX_HOST = 253
"""Bytes of a host: the longest DNS name (RFC 1035)."""
MAX_DELEGATION = 512
"""Bytes of a delegation: the longest one has 427, and a record of 4 KiB has to hold it."""
DIGEST_SLOT_MS = 1000
"""Milliseconds of signed time that one entry of a digest covers."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one node chooses for itself, in seconds, messages or bytes as each field states."""

    # links
    max_links: int = 100
    """Links kept at once. With no more other members than this, the mesh is a full mesh."""
    sparse_links: int = 14
    """Links dialled in a mesh larger than ``max_links``, where others dial as many again:
    ring neighbours plus random picks keep a graph of this degree connected with overwhelming probability."""
    hello_timeout: float = 5.0
    """Seconds from an open connection to a valid HELLO."""
    redial_first: float = 0.25
    """Seconds until the first new dial; doubles up to ``redial_max``, with +-50 % jitter against stampedes."""
    redial_max: float = 30.0
    """Seconds between dials to a peer that stays away."""

    # push
    flood_size: int = 16 * 1024
    """Bytes of body up to which the origin pushes to all links: one hop for all, at 1.6 MiB for 100 links."""
    flood_links: int = 128
    """The most links that such a push goes to."""
    flood_relay: int = 2
    """Copies a relay passes on of what the origin already pushed to all: cover for a lost link."""
    flood_wait: float = 0.01
    """Seconds until it does: a push takes less even on a busy host, and this adds little to a longer path."""
    fanout: int = 5
    """Copies a relay passes on otherwise. Random push with 5 reaches 99 % of a large mesh; repair does the rest."""

    # repair
    offer_delay: float = 0.03
    """Seconds from first receipt to the first IHAVE: pushes in flight arrive first."""
    offer_interval: float = 0.2
    """Seconds between the rounds of IHAVE."""
    offer_rounds: int = 5
    """Rounds of IHAVE after the first: six links a round leave no node out with overwhelming probability."""
    flood_offers: int = 1
    """The same for what the origin already pushed to all: together, the relays offer it to each node twelve times."""
    offer_links: int = 6
    """Links that one round of IHAVE goes to."""
    want_timeout: float = 0.12
    """Seconds until another holder is asked, or two round trips if longer, but never more than ``want_offence``."""
    want_offence: float = 3.0
    """Seconds until a holder that offered, sent nothing and kept talking has committed an offence."""
    want_answers: int = 3
    """Copies of one message sent to one link on request, until it sends a LIST for that second: covers two losses."""
    want_bytes_rate: int = 4 * 1024 * 1024
    """Bytes a second sent to one link on request: repair must not starve the rest of the lane."""
    want_bytes_burst: int = 16 * 1024 * 1024
    """Bytes sent to one link on request in one burst: the minute that a restarted peer missed."""
    offers_per_link: int = 16_384
    """Offered ids remembered per link, so that one link cannot exhaust memory."""
    digest_interval: float = 5.0
    """Seconds between digests on a link: what pushes and offers missed is found within this time."""
    compare_rate: float = 1.0
    """DIGESTs compared, and LISTs answered, per second and link. Honest ones come once per ``digest_interval``; a
    second of 50,000 messages takes 2 ms to rehash and 0.15 s to list."""
    compare_burst: float = 4.0
    """The same at once: each HELLO brings one more."""

    # memory
    author_ids: int = 65_536
    """Ids remembered per author: about 18 MiB, plus 100 bytes per kept body for each link that has it or was offered
    it. Beyond this, a low-water mark stands in for the oldest."""
    author_bytes: int = 16 * 1024 * 1024
    """Bytes of bodies kept for repair per author, plus 200 bytes each for signature and id. The oldest are evicted
    first, and only that author's."""
    cache_bytes: int = 256 * 1024 * 1024
    """Bytes of bodies kept for repair across all authors."""
    parked: int = 4
    """Further copies that wait while the first is being verified, one per link."""
    verifying: int = 4096
    """Messages out for verification at once: under a third of a second of one core."""

    # direct
    direct_pending: int = 1024
    """Direct messages under way from this node."""
    direct_first_retry: float = 0.25
    """Seconds until the first repetition; doubles with jitter up to ``direct_max_retry``."""
    direct_max_retry: float = 5.0
    """Seconds between repetitions."""
    direct_acks: int = 65_536
    """Acknowledgements kept for ``RETENTION`` to answer repetitions: about 30 MiB, twice what one account's rate can
    fill. No author gets more than an even share of the second half."""
    direct_acks_reserved: int = 32
    """On top of these, for each author, however many others hold."""
    direct_idle: float = 60.0
    """Seconds until a link dialled for one direct send is closed again."""

    # rates: sustained per second, and what may come at once
    link_rate: float = 20_000.0
    """Frames a second from one link: above what one core can verify, so only a flood of junk reaches it."""
    link_burst: float = 60_000.0
    author_rate: float = 500.0
    """Gossip messages a second from one account; a large one counts as several, see ``rates.AUTHOR_UNIT``."""
    author_burst: float = 5_000.0
    """A legitimate burst (1,000 announcements at once) passes several times over."""
    direct_rate: float = 200.0
    """Direct messages a second from one account."""
    direct_burst: float = 2_000.0

    # peers
    alive: float = 300.0
    """Seconds for which an author counts as alive after its last signed frame."""
    forget: float = 600.0
    """Seconds of silence after which a peer is no longer listed."""
    ignore_below: float = 50.0
    """Reputation below which the application's handlers do not see an author's messages."""
    drop_below: float = 20.0
    """Reputation below which the link is dropped."""
    heal: float = 600.0
    """Seconds in which a reputation heals by 100 points, at most back to where it started."""
