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
"""Bytes of a body beside its payload: the fields have under 200, the rest is room for later ones."""
MAX_BODY = MAX_PAYLOAD + MAX_AROUND
"""Bytes of a body."""
MAX_VALUES = 8192
"""Values of a payload, itself, its keys and whatever they hold counted: as many 64-bit floats fill it. A value takes an
object of 50 bytes or more at whoever reads it, and one byte on the wire."""
MAX_CONTROL = 40 * 1024
"""Bytes of a control frame: ``MAX_IDS`` ids and their framing."""
MAX_IDS = 2048
"""Ids in one IHAVE or IWANT: 32 KiB of ids, a frame that does not delay a message behind it."""
MAX_FRAME = 128 * 1024
"""Bytes of one transport frame, twice the largest body: what the sockets refuse by themselves."""
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
"""Seconds: a retry after this could arrive as STALE."""
MAX_ENDPOINTS = 8
"""Addresses of one peer: a record stays small and a dial stays short."""
MAX_NAME = 128
"""Bytes of a peer_id in UTF-8."""
DIGEST_SLOT_MS = 1000
"""Milliseconds of signed time that one entry of a digest covers."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one node chooses for itself. Seconds, messages or bytes as each line says."""

    # links
    max_links: int = 100
    """Links kept at once. In a mesh of no more members than this, everybody is linked with everybody."""
    sparse_links: int = 14
    """Links dialled where the mesh is larger than ``max_links``, and as many again are dialled by others:
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
    """Links that such a push reaches at most."""
    flood_relay: int = 2
    """Copies a relay passes on of what the origin already pushed to everybody: cover for a lost link."""
    flood_wait: float = 0.01
    """Seconds until then: a push takes less on a busy host, and a longer way is not made much longer by it."""
    fanout: int = 5
    """Copies a relay passes on otherwise. Random push with 5 reaches 99 % of a large mesh; repair does the rest."""

    # repair
    offer_delay: float = 0.03
    """Seconds from first receipt to the first IHAVE: pushes on the way arrive first."""
    offer_interval: float = 0.2
    """Seconds between the rounds of IHAVE."""
    offer_rounds: int = 5
    """Rounds of IHAVE after the first: six links each round leave nobody out with overwhelming probability."""
    flood_offers: int = 1
    """The same of what the origin already pushed to everybody: all relays together offer it twelve times to each."""
    offer_links: int = 6
    """Links that one round of IHAVE goes to."""
    want_timeout: float = 0.12
    """Seconds until another holder is asked, or two round trips if that is longer, but never over ``want_offence``."""
    want_offence: float = 3.0
    """Seconds until a holder that offered, sent nothing and went on talking has committed an offence."""
    want_answers: int = 3
    """Copies sent of one message to one link by request, until it asks for a LIST of that second: covers two losses."""
    want_bytes_rate: int = 4 * 1024 * 1024
    """Bytes a second sent to one link by request: repair must not starve the rest of the lane."""
    want_bytes_burst: int = 16 * 1024 * 1024
    """Bytes sent to one link by request in one burst: a restarted peer's missed minute."""
    offers_per_link: int = 16_384
    """Offered ids remembered per link: one link cannot grow the memory."""
    digest_interval: float = 5.0
    """Seconds between digests on a link: what pushes and offers missed is found within this."""
    compare_rate: float = 1.0
    """DIGESTs of one link a second that are compared, and LISTs that are answered. Honest ones come once in
    ``digest_interval``; a second of 50,000 messages takes 2 ms to hash anew and 0.15 s to list."""
    compare_burst: float = 4.0
    """At once: each HELLO brings one more."""

    # memory
    author_ids: int = 65_536
    """Ids remembered per author, about 18 MiB, and 100 bytes more for each link that has one whose body is kept, or was
    offered it; beyond it a low-water mark stands in for the oldest."""
    author_bytes: int = 16 * 1024 * 1024
    """Bytes of bodies kept for repair per author, each with 200 bytes more for signature and id; the oldest go first,
    and only that author's."""
    cache_bytes: int = 256 * 1024 * 1024
    """Bytes of bodies kept for repair over all authors."""
    parked: int = 4
    """Further copies that wait while a first one is being verified, one per link."""
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
    """Acknowledgements kept for answering repetitions, for ``RETENTION``: about 30 MiB, twice what one account's rate
    can fill. Of the half that is filled last nobody has more than an even share."""
    direct_acks_reserved: int = 32
    """Beside these, for each author whatever others fill."""
    direct_idle: float = 60.0
    """Seconds until a link that was dialled for one direct send is closed again."""

    # rates: sustained per second, and what may come at once
    link_rate: float = 20_000.0
    """Frames a second from one link: above what one core can verify, so only a flood of junk meets it."""
    link_burst: float = 60_000.0
    author_rate: float = 500.0
    """Gossip messages a second of one account; a large one counts as several, see ``rates.AUTHOR_UNIT``."""
    author_burst: float = 5_000.0
    """A legitimate burst (1,000 announcements at once) passes several times over."""
    direct_rate: float = 200.0
    """Direct messages a second of one account."""
    direct_burst: float = 2_000.0

    # peers
    alive: float = 300.0
    """Seconds since an author's last signed frame for which it counts as alive."""
    forget: float = 600.0
    """Seconds of silence after which a peer is no longer listed."""
    ignore_below: float = 50.0
    """Reputation under which handlers do not see an author's messages."""
    drop_below: float = 20.0
    """Reputation under which the link is dropped."""
    heal: float = 600.0
    """Seconds in which a reputation of 0 comes back to where it started."""
