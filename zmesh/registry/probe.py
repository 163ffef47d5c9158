"""Whether the chain's RPC endpoint answers, so that a node can report it once; a node never needs one to run."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

from zmesh.core.types import Endpoint

_PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}


def rpc_endpoint(url: str) -> Endpoint:
    """The host and port of ``url`` (already checked by ``config.Settings.blockchain_rpc``), without a password."""
    parts = urlsplit(url)
    return Endpoint(parts.hostname or "", parts.port or _PORTS[parts.scheme])


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
        return f"the chain's RPC endpoint at {endpoint} cannot be reached: {_reason(error)}"
    writer.close()
    return None


def _reason(error: OSError) -> str:
    """The operating system's words: asyncio replaces them with its own, one for each address of a name."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or "none of its addresses accepts a connection"
