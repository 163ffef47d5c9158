"""Messages as one frame of ZMTP: what was packed comes back, and any bytes unpack to something."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.types import Frames
from zmesh.transports.packing import MAX_BUNDLE, MAX_FRAMES, bundle, pack, unpack

MESSAGES = st.lists(st.binary(max_size=300), min_size=1, max_size=MAX_FRAMES).map(tuple)


@given(st.lists(MESSAGES, min_size=1, max_size=MAX_BUNDLE), st.binary(max_size=40))
def test_messages_come_back_from_behind_whatever_stands_before_them(messages: list[Frames], before: bytes) -> None:
    assert unpack(before + bundle([pack(frames) for frames in messages]), len(before)) == messages


@given(
    st.binary(max_size=200)
    | st.builds(bytes.__add__, st.sampled_from([b"\1", b"\2", b"\3", b"\0\2", b"\0\3"]), st.binary(max_size=90))
)
def test_any_bytes_unpack_to_what_packs_to_them_or_to_no_frames(data: bytes) -> None:
    messages = unpack(data)

    assert 1 <= len(messages) <= MAX_BUNDLE
    assert () in messages or bundle([pack(frames) for frames in messages]) == data


@given(st.lists(MESSAGES, min_size=2, max_size=MAX_BUNDLE), st.integers(MAX_FRAMES + 1, 255))
def test_what_begins_with_neither_a_count_nor_a_zero_is_no_bundle_whatever_follows(
    messages: list[Frames], first: int
) -> None:
    data = bundle([pack(frames) for frames in messages])
    assert unpack(bytes([first]) + data[1:]) == [()]
