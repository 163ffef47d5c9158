"""Small files that must be read and written whole: keys, epochs, registries.

Rules
 1. A reader sees the whole old content or the whole new one, even across a crash or a power cut.
 2. Files written here are private: mode 0600 from their first moment on.
 3. Every failure is a ``ConfigError`` that names the path.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from pathlib import Path

from zmesh.core.errors import ConfigError

ROOT = 0
"""The user id of root."""

_MADE_UP = re.compile(r"[a-z0-9_]{8}")
"""What ``mkstemp`` adds to a prefix."""


def read_regular(path: Path, what: str, most: int) -> tuple[bytes, os.stat_result]:
    """Up to ``most`` bytes of a regular file, and its status from before they were read.

    ``what`` names the file in errors. A symbolic link is followed: containers mount secrets and settings as links.
    Raises ``ConfigError`` for anything that cannot be opened or is not a regular file.
    """
    content: bytes | None = None
    try:
        # Opened first and examined second, so that the file examined is the file read; opening a pipe must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                with open(descriptor, "rb", closefd=False) as file:
                    content = file.read(most)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ConfigError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if content is None:
        raise ConfigError(f"{what} must be a regular file")
    return content, status


def refuse_exposed(status: os.stat_result, what: str, path: str) -> None:
    """Raise ``ConfigError`` unless the file is this user's alone, or root's and at most its group can read it.

    Root's are the secrets that orchestrators mount into containers, for a group of the user's. ``what`` names the file.
    """
    mode, me = stat.S_IMODE(status.st_mode), os.geteuid()
    if status.st_uid not in (me, ROOT):
        raise ConfigError(f"{what} belongs to user {status.st_uid}: run `chown {me} {path}`")
    most = 0o600 if status.st_uid == me else 0o640
    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~most:
        raise ConfigError(f"{what} is accessible to others (mode {mode:04o}): run `chmod {most:o} {path}`")


def create_private(path: Path, content: bytes) -> None:
    """Write a new file; refuse if the path exists.

    Raises ``ConfigError`` if the path exists or no file can be made in its folder.
    """
    try:
        staged = _stage(path, content)
        try:
            # Unlike a rename, a link fails if the target exists.
            os.link(staged, path)
        finally:
            os.unlink(staged)
        _settle(path.parent)
    except FileExistsError:
        raise ConfigError(f"{path} already exists: name a new file, or move this one away first") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be created: {error.strerror or error}") from None


def replace_private(path: Path, content: bytes) -> None:
    """Write a file, replacing the one that is there, if any.

    Raises ``ConfigError`` if no file can be made in its folder.
    """
    try:
        staged = _stage(path, content)
        try:
            os.replace(staged, path)
        except OSError:
            os.unlink(staged)
            raise
        _settle(path.parent)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None


def discard_staged(path: Path) -> None:
    """Remove what crashes have left of writes of this file, which nothing may be writing now. Never raises: what cannot
    be removed costs only its space."""
    with contextlib.suppress(OSError):
        for name in os.listdir(path.parent):
            rest = name.removeprefix(f".{path.name}.")
            if name != rest and _MADE_UP.fullmatch(rest):
                os.unlink(path.parent / name)


def _stage(path: Path, content: bytes) -> str:
    """Write ``content`` under another name in the same folder; ``mkstemp`` gives the file mode 0600."""
    descriptor, staged = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        os.unlink(staged)
        raise
    return staged


def _settle(folder: Path) -> None:
    """Make the new name itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
