"""What a forked child lets go of: the connections and ports of the nodes of this process, and their state folders.

Why: a child made by ``os.fork``, such as a worker of a data loader, inherits every descriptor. As long as it lives, no
peer would notice that a connection was closed here, not even by the death of this process, and whoever starts this node
again would find its ports and its folder taken.
Rules
 1. A descriptor is not closed in the child but replaced by one of the null device: some object that the child has
    inherited as well will still close that number, which by then could be another's.
 2. Nothing is taken off an event loop: its selector is shared with the parent.
 3. Which descriptors are a node's is decided in the child, by local addresses and by what the kernel knows them as: a
    connection that was accepted a moment ago is in no list of ours, and ZeroMQ has descriptors of its own.
 4. Whatever else the application has open stays as it is, in the child and in the parent.
"""

from __future__ import annotations

import os
import socket
import stat
import weakref
from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address

from zmesh.core.types import Endpoint

DESCRIPTORS = "/dev/fd"
"""A folder of this process's open descriptors, on Linux and macOS. Where there is none, children keep them all."""

listeners: weakref.WeakKeyDictionary[object, tuple[Endpoint, ...]] = weakref.WeakKeyDictionary()
"""Where each part of a node listens, while it does."""
connections: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""Handles to connections that nodes made."""
locks: set[int] = set()
"""Descriptors that hold locks."""


def _let_go() -> None:
    if listeners or connections or locks:
        default = socket.getdefaulttimeout()
        # With a default, making a handle would make the socket behind it non-blocking, which the parent shares.
        socket.setdefaulttimeout(None)
        with suppress(OSError):
            _replace_descriptors()
        socket.setdefaulttimeout(default)
        # These numbers and addresses may soon be others' in the child, which may fork, too.
        listeners.clear()
        connections.clear()
        locks.clear()


def _replace_descriptors() -> None:
    made = {os.fstat(handle.fileno()).st_ino for handle in connections if handle.fileno() >= 0}
    listening = {_local(each.host, each.port) for endpoints in listeners.values() for each in endpoints}
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in map(int, os.listdir(DESCRIPTORS)):
        with suppress(OSError):  # the one that listed them is closed by now
            if descriptor in locks or _is_of_a_node(descriptor, made, listening):
                os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def _is_of_a_node(descriptor: int, made: Collection[int], listening: Collection[tuple[str, int]]) -> bool:
    status = os.fstat(descriptor)
    if not stat.S_ISSOCK(status.st_mode):
        return False
    if status.st_ino in made:
        return True
    with socket.socket(fileno=os.dup(descriptor)) as handle:
        if handle.family not in (socket.AF_INET, socket.AF_INET6) or handle.type != socket.SOCK_STREAM:
            return False
        host, port = handle.getsockname()[:2]
        return _local(host, port) in listening or ("", port) in listening


def _local(host: str, port: int) -> tuple[str, int]:
    """A local address in one form; all addresses of this machine are ``""``."""
    address = ip_address(host.partition("%")[0])
    return ("" if address.is_unspecified else str(address)), port


os.register_at_fork(after_in_child=_let_go)
