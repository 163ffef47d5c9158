"""What outlives a restart: the last epoch, reputations, what was learnt about others, and what this node pledged. One
folder, or nothing at all.

Rules
 1. Files are replaced as a whole, so that a crash leaves the old one or the new one.
 2. A lost folder locks no node out: the epoch is at least the present second, and the rest starts afresh. So does a
    damaged file, with a warning, except for two that refuse the start: a wrong epoch could repeat, and a node that has
    lost its pledges could contradict its own votes. An operator can tell whether that would matter; a node cannot.
 3. A folder belongs to one life of one node at a time (``held``): each writes what it alone knows over all files.
 4. Blocking: call it in a thread.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from zmesh import forked
from zmesh.core.bounds import AHEAD
from zmesh.core.errors import ConfigError
from zmesh.core.sentence import shown
from zmesh.files import discard_staged, read_regular, replace_private
from zmesh.handlers.pledges import Pledges
from zmesh.log import get_logger

EPOCH_FILE = "epoch"
REPUTATION_FILE = "reputation.json"
RECORDS_FILE = "records.msgpack"
DELEGATIONS_FILE = "delegations.json"
PLEDGES_FILE = "pledges.json"
MAX_EPOCH_FILE = 32
"""Bytes read of an epoch file: seconds since 1970 have ten digits."""
PLEDGES_VERSION = 1
"""Changes when a version of zmesh that reads the file as it is now would misread it."""
MAX_LEARNT = 16 * 1024 * 1024
"""Bytes of a file of learnt data: twice what is ever written."""
SAVE_SECONDS = 60.0
"""Seconds between saves: a score needs ten minutes to heal, so a crash forgives a tenth at most."""

_log = get_logger(__name__)

Scores = Mapping[str, tuple[float, float]]
"""Account -> (score, seconds since it was set)."""


class State:
    """If ``folder`` is None, nothing is kept. Raises ``ConfigError`` if the folder cannot be made."""

    interval = SAVE_SECONDS

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._epoch = 0
        """The epoch of the last start: two starts in one second get different ones, with a folder or without."""
        self._pledging = threading.Lock()
        """Held while pledges are read or written: after a stop that could not wait for a slow disk, the next start
        does."""
        self._saving = threading.Lock()
        """Held while all else is written, so that what an earlier life still writes does not replace what is newer."""
        if folder is not None:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(
                    f"state_dir (MESH_STATE_DIR) must be a folder that can be written, not {folder}: {error.strerror}"
                ) from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep all others off the folder: nodes in this process, and in others on this machine. A crash lets go of it.

        Raises ``ConfigError`` if another has it. File systems that know no locks keep none. Does not block.
        """
        if self._folder is None:
            yield
            return
        try:
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ConfigError(f"state_dir {self._folder} cannot be opened: {error.strerror}") from None
        try:
            forked.locks.add(descriptor)
            _lock(descriptor, self._folder)
            yield
        finally:
            forked.locks.discard(descriptor)
            os.close(descriptor)

    def next_epoch(self, wall: float) -> int:
        """The epoch of this start: above every earlier one, and stored before it is returned.

        ``wall``: seconds since 1970. The epoch is its whole number unless an earlier one is as high, so that a lost
        file locks no node out. Raises ``ConfigError`` if the file is unreadable, holds no number, or is so far ahead of
        the clock that every peer would refuse the epoch.
        """
        path = None if self._folder is None else self._folder / EPOCH_FILE
        stored = 0 if path is None else _stored_epoch(path)
        if stored + 1 > wall + AHEAD:
            ahead = f"{stored + 1 - wall:.0f} s ahead of this clock, which peers refuse"
            hint = "set the clock, or delete the file if the clock was wrong when it was written"
            raise ConfigError(f"{path} holds epoch {stored}, {ahead}: {hint}")
        # No peer has accepted an epoch from a clock that was ahead, and none would accept those above it.
        last = 0 if self._epoch > wall + AHEAD else self._epoch
        epoch = max(stored + 1, last + 1, int(wall))
        if path is not None:
            replace_private(path, b"%d\n" % epoch)
        self._epoch = epoch
        return epoch

    def reputation(self) -> Scores:
        """The scores as last saved, older by the time since then."""
        if self._folder is None:
            return {}
        path = self._folder / REPUTATION_FILE
        try:
            saved = json.loads(path.read_bytes())
            passed = max(0.0, time.time() - float(saved["at"]))
            return {
                str(account): (float(score), float(age) + passed) for account, (score, age) in saved["scores"].items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            _log.warning("reputation_not_restored", file=str(path), why=str(error) or type(error).__name__)
            return {}

    @property
    def is_kept(self) -> bool:
        """Whether anything is."""
        return self._folder is not None

    def pledges(self) -> Pledges:
        """What was pledged last; nothing without a file. Removes what crashes in the midst of a vote have left. Raises
        ``ConfigError`` if the file does not say."""
        if self._folder is None:
            return Pledges()
        path = self._folder / PLEDGES_FILE
        hint = "restore it, or delete it if nothing is open that this account may have voted on or proposed"
        with self._pledging:
            discard_staged(path)
            try:
                path.lstat()
                content, _ = read_regular(path, "it", MAX_LEARNT + 1)
                return _pledges(content)
            except FileNotFoundError:
                return Pledges()
            except (OSError, ValueError, RecursionError) as error:  # a ConfigError is a ValueError
                why = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise ConfigError(f"{path} must say what this node has pledged, but {why}: {hint}") from None

    def pledge(self, pledges: Pledges) -> None:
        """Replace what was pledged, so that it survives a power cut. Raises ``ConfigError`` if that fails."""
        assert self._folder is not None
        lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in pledges.export())
        content = f'{{"version": {PLEDGES_VERSION}, "pledges": [\n{lines}\n]}}\n'.encode()
        path = self._folder / PLEDGES_FILE
        if len(content) > MAX_LEARNT:
            raise ConfigError(f"{path} cannot be written: it would have more than {MAX_LEARNT} bytes")
        with self._pledging:
            replace_private(path, content)

    def save(self, scores: Scores, learnt: Mapping[str, bytes]) -> str | None:
        """Replace what was saved: the scores, and what was learnt about others, by file name. Returns what is wrong, if
        anything."""
        reputation = json.dumps({"at": time.time(), "scores": scores}).encode()
        files = {REPUTATION_FILE: reputation, **learnt}
        with self._saving:
            problems = [self._replace(name, content) for name, content in files.items()]
        return next(filter(None, problems), None)

    def learnt(self, name: str) -> bytes | None:
        """What was saved under this file name; None if there is nothing readable."""
        if self._folder is None or not (self._folder / name).exists():
            return None
        path = self._folder / name
        try:
            content, _ = read_regular(path, str(path), MAX_LEARNT + 1)
        except ConfigError as error:
            _log.warning("state_not_restored", file=str(path), why=str(error))
            return None
        if len(content) > MAX_LEARNT:
            _log.warning("state_not_restored", file=str(path), why=f"it is larger than {MAX_LEARNT} bytes")
            return None
        return content

    def _replace(self, name: str, content: bytes) -> str | None:
        """What is wrong, if anything."""
        if self._folder is None:
            return None
        path = self._folder / name
        try:
            replace_private(path, content)
        except ConfigError as error:
            _log.warning("state_not_saved", file=str(path), why=str(error))
            return str(error)
        return None


def _lock(descriptor: int, folder: Path) -> None:
    """Lock the folder until this is closed. Raises ``ConfigError`` if another has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        hint = "each needs a folder of its own, or they forget each other's votes"
        raise ConfigError(f"another node runs on state_dir {folder}: {hint}") from None
    except OSError:
        pass  # a file system without locks


def _stored_epoch(path: Path) -> int:
    if not path.exists():
        return 0
    content, _ = read_regular(path, str(path), MAX_EPOCH_FILE)
    text = content.decode("ascii", "replace").strip()
    if not (text.isdigit() and len(content) < MAX_EPOCH_FILE):
        raise ConfigError(f"{path} must hold an epoch, not {shown(text)}: delete it, and the clock gives the next one")
    return int(text)


def _pledges(content: bytes) -> Pledges:
    """Raises ``ValueError`` with a clause, or ``RecursionError``."""
    if len(content) > MAX_LEARNT:
        raise ValueError(f"it is larger than {MAX_LEARNT} bytes")
    try:
        saved = json.loads(content)
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from None
    if not isinstance(saved, dict) or saved.get("version") != PLEDGES_VERSION:
        raise ValueError(f"it is not of version {PLEDGES_VERSION}")
    return Pledges.restored(saved.get("pledges"))
