"""What a forked child lets go of: the connections and ports of the nodes of this process, and their state folders.

Why: a child made by ``os.fork``, such as a worker of a data loader, inherits every descriptor. As long as it lives, no
peer would notice that a connection was closed here, not even by the death of this process, and whoever starts this node
again would find its ports and its folder taken.
Rules
 1. A descriptor is not closed in the child but replaced by one of the null device: some object that the child has
    inherited as well will still close that number, which by then could be another's.
 2. Nothing is taken off an event loop: its selector is shared with the parent.
 3. Which descriptors are a node's is decided in the child, by local ports and by what the kernel knows them as: a
    connection that was accepted a moment ago is in no list of ours, and ZeroMQ has descriptors of its own.
"""

from __future__ import annotations

import os
import socket
import stat
import weakref
from contextlib import suppress

DESCRIPTORS = "/dev/fd"
"""A folder of this process's open descriptors, on Linux and macOS. Where there is none, children keep them all."""

ports: list[int] = []
"""Where nodes listen: each for as long as it does, and one port twice if it is that of two addresses."""
connections: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""Handles to connections that nodes made."""
locks: set[int] = set()
"""Descriptors that hold locks."""


def _let_go() -> None:
    if not (ports or connections or locks):
        return
    with suppress(OSError):
        made = {os.fstat(handle.fileno()).st_ino for handle in connections if handle.fileno() >= 0}
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in map(int, os.listdir(DESCRIPTORS)):
            with suppress(OSError):  # the one that listed them is closed by now
                if descriptor in locks or _is_of_a_node(descriptor, made):
                    os.dup2(null, descriptor, inheritable=False)
        os.close(null)


def _is_of_a_node(descriptor: int, made: set[int]) -> bool:
    status = os.fstat(descriptor)
    if not stat.S_ISSOCK(status.st_mode):
        return False
    if status.st_ino in made:
        return True
    with socket.socket(fileno=os.dup(descriptor)) as handle:
        is_tcp = handle.family in (socket.AF_INET, socket.AF_INET6) and handle.type == socket.SOCK_STREAM
        return is_tcp and handle.getsockname()[1] in ports


os.register_at_fork(after_in_child=_let_go)
