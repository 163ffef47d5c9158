"""A message as one frame of ZMTP: what was packed comes back, and any bytes unpack to something."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zmesh.transports.packing import MAX_FRAMES, pack, unpack


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=MAX_FRAMES), st.binary(max_size=40))
def test_frames_come_back_from_behind_whatever_stands_before_them(frames: list[bytes], before: bytes) -> None:
    assert unpack(before + pack(tuple(frames)), len(before)) == tuple(frames)


@given(
    st.binary(max_size=200) | st.builds(bytes.__add__, st.sampled_from([b"\1", b"\2", b"\3"]), st.binary(max_size=90))
)
def test_any_bytes_unpack_to_what_packs_to_them_or_to_no_frames(data: bytes) -> None:
    frames = unpack(data)

    assert frames == () or pack(frames) == data
