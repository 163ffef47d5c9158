"""What a chain on this machine needs from npm, installed once and shared by all callers.

Rules
 1. None of it is part of zmesh: pinned packages are fetched when they are needed, from wherever npm is set up to look.
    The packages that contain a genesis are under the GPL.
 2. A folder is complete or not there: it is made under another name and renamed at the end.
 3. One process installs, others wait for it. No package script runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from zmesh.core.errors import ZmeshError

PACKAGES = ("@acala-network/chopsticks@1.5.1", "@substrate/connect-known-chains@1.10.3")
"""A runner of genuine FRAME runtimes, and the genesis of a collator chain."""
OLD_SPECS = "@substrate/connect@0.4.6"
"""Contains the genesis of a relay chain with Staking; nothing else in it is needed."""
LEAST_NODE = 20
"""Lowest major version of node: older ones lack what chopsticks is written in."""
SECONDS = 300.0
"""Seconds for one call of npm: 240 MB take 30 to 50."""
CACHE_VARIABLE = "ZMESH_CHAIN_CACHE"

_READ_GENESIS = """
import { chainSpec } from '@substrate/connect-known-chains/rococo_v2_2_asset_hub'
process.stdout.write(chainSpec)
"""
_COLLATORS, _STAKING = "asset_hub.json", "polkadot.json"


class NoChainError(ZmeshError):
    """This machine cannot run a chain; the sentence says what is missing."""


class NoNodeError(NoChainError):
    """node or npm is not installed: nothing went wrong, and retrying is of no use."""


class Installed(NamedTuple):
    """Where everything is."""

    node: str
    folder: Path

    @property
    def chopsticks(self) -> Path:
        """The program."""
        return self.folder / "node_modules/@acala-network/chopsticks/chopsticks.cjs"

    @property
    def collators(self) -> Path:
        """The genesis of Rococo's asset hub: Session, CollatorSelection (statemine 900, metadata V14, prefix 2)."""
        return self.folder / _COLLATORS

    @property
    def staking(self) -> Path:
        """The genesis of Polkadot: Session, Staking (polkadot 0, metadata V11, prefix 0)."""
        return self.folder / _STAKING


def install() -> Installed:
    """Everything that chopsticks needs, installed if necessary. Blocks, for a minute the first time.

    Raises ``NoNodeError`` with one sentence if node or npm is missing, ``NoChainError`` if they cannot install.
    """
    node, npm = _program("node"), _program("npm")
    version = _run(node, "--version").strip()
    if int(version.removeprefix("v").partition(".")[0]) < LEAST_NODE:
        raise NoChainError(f"a chain on this machine needs node {LEAST_NODE} or newer, not {version}")
    pinned = hashlib.blake2b(repr((PACKAGES, OLD_SPECS, _READ_GENESIS)).encode(), digest_size=6).hexdigest()
    installed = Installed(node, _cache() / f"chopsticks-{pinned}")
    with _alone(installed.folder.parent):
        if not installed.folder.exists():
            _install(npm, installed)
    return installed


def _cache() -> Path:
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "zmesh"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NoNodeError(f"a chain on this machine needs node and npm, but {name} is not installed")
    return found


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Hold the lock of this cache; its holder is done after three calls of ``SECONDS`` at most."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / "lock").open("wb")
    except OSError as error:
        raise NoChainError(f"the chain's packages cannot be stored in {cache}: {error.strerror}") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # closing releases it
        yield


def _install(npm: str, installed: Installed) -> None:
    with tempfile.TemporaryDirectory(prefix=".making-", dir=installed.folder.parent) as staged:
        made = Installed(installed.node, Path(staged) / "whole")
        made.folder.mkdir()
        # Without a manifest here, npm would look for one in the folders above.
        (made.folder / "package.json").write_text('{"private": true}\n', encoding="utf-8")
        quiet = ("--no-audit", "--no-fund", "--loglevel=error")
        _run(npm, "install", "--ignore-scripts", "--omit=optional", *quiet, *PACKAGES, folder=made.folder)
        made.collators.write_text(
            _run(made.node, "--input-type=module", "--eval", _READ_GENESIS, folder=made.folder), encoding="utf-8"
        )
        _run(npm, "pack", "--ignore-scripts", *quiet, OLD_SPECS, folder=made.folder)
        (packed,) = made.folder.glob("*.tgz")
        with tarfile.open(packed) as archive:
            genesis = archive.extractfile("package/dist/specs/polkadot.json")
            if genesis is None:
                raise NoChainError(
                    f"{OLD_SPECS} does not hold the genesis where it is expected: another version was published"
                )
            made.staking.write_bytes(genesis.read())
        packed.unlink()
        made.folder.rename(installed.folder)


def _run(*command: str, folder: Path | None = None) -> str:
    """The output of a command."""
    what = f"{Path(command[0]).name} {command[1]}"
    try:
        done = subprocess.run(  # noqa: S603 - the arguments are constants of this file
            command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise NoChainError(f"`{what}` took longer than {SECONDS:.0f} s: try again with a faster network") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise NoChainError(f"`{what}` failed: {said[0]}")
    return done.stdout
