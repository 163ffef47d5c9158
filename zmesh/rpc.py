"""The RPC endpoint of a chain: which URLs name one, how it is named in messages, and whether anything answers there.

Rules
 1. A URL may carry a password or an access key: nothing returned here contains more of it than scheme, host and port.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final
from urllib.parse import urlsplit

from zmesh.core.types import Endpoint

_PORTS: Final = {"ws": 80, "http": 80, "wss": 443, "https": 443}


def is_rpc(url: str) -> bool:
    """Whether the URL can be that of an RPC endpoint. The other functions expect one that is."""
    try:
        parts = urlsplit(url)
        return parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def rpc_endpoint(url: str) -> Endpoint:
    """The host and port of ``url``."""
    parts = urlsplit(url)
    return Endpoint(parts.hostname or "", parts.port or _PORTS[parts.scheme])


def rpc_name(url: str) -> str:
    """``url`` as far as it may be shown."""
    return f"{urlsplit(url).scheme}://{rpc_endpoint(url)}"


async def probe_rpc(url: str, timeout: float) -> str | None:  # noqa: ASYNC109 - the caller wants an answer, no exception
    """Why nothing answers at ``url``, in one sentence, or None if a connection is made within ``timeout`` seconds.

    Connects and hangs up; says nothing about what the endpoint serves. Raises nothing.
    """
    endpoint = rpc_endpoint(url)
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(*endpoint)
    except TimeoutError:
        return f"the chain's RPC endpoint at {endpoint} did not answer within {timeout:g} s"
    except UnicodeError:
        # A label that is empty or too long: Python encodes names before it looks them up.
        return f"the chain's RPC endpoint at {endpoint} cannot be reached: invalid host name"
    except OSError as error:
        why = system_words(error) or error.strerror or "none of its addresses accepts a connection"
        return f"the chain's RPC endpoint at {endpoint} cannot be reached: {why}"
    writer.close()
    return None


def system_words(error: BaseException) -> str | None:
    """The operating system's words for an error, if it is one of its own: asyncio and aiohttp replace them with theirs,
    one for each address of a name."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else None
