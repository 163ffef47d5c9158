"""Asks a node of the chain for its genesis hash, which a delegation has to name.

Rules
 1. The answer is bounded in size and time. A bad one is refused in one sentence that does not repeat a password.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

from zmesh.core.errors import ConfigError
from zmesh.rpc import is_rpc, rpc_name, system_words

SECONDS: Final = 10.0
"""Seconds for the whole exchange: an answer takes milliseconds."""
MAX_ANSWER: Final = 64 * 1024
"""Bytes: the answer has about 110."""

_QUESTION: Final = {"jsonrpc": "2.0", "id": 1, "method": "chain_getBlockHash", "params": [0]}


def ask_genesis(url: str) -> str:
    """The hash in hexadecimal, as the node writes it. Raises ``ConfigError`` if it cannot be obtained."""
    return asyncio.run(_ask(url))


async def _ask(url: str) -> str:
    from aiohttp import ClientError, ClientSession, ClientTimeout

    if not is_rpc(url):
        raise ConfigError("the URL (not shown) must be of the form ws://HOST:PORT, such as ws://localhost:9944")
    named = rpc_name(url)
    try:
        async with asyncio.timeout(SECONDS), ClientSession(timeout=ClientTimeout(SECONDS)) as session:
            if url.lower().startswith("ws"):
                async with session.ws_connect(url, max_msg_size=MAX_ANSWER) as socket:
                    await socket.send_json(_QUESTION)
                    content: str | bytes = await socket.receive_str()
            else:
                async with session.post(url, json=_QUESTION) as response:
                    content = b""
                    # Without a Content-Length it comes in pieces.
                    while len(content) < MAX_ANSWER and (piece := await response.content.read(MAX_ANSWER)):
                        content += piece
        answer = json.loads(content)["result"]
    except (ClientError, OSError, TimeoutError) as error:
        raise ConfigError(f"{named} did not give the chain's genesis hash: {_reason(error)}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(
            f"{named} did not give the chain's genesis hash: it is not a node of a Substrate chain"
        ) from None
    return str(answer)


def _reason(error: Exception) -> str:
    """In the operating system's words if there are any; libraries replace them with their own."""
    status = getattr(error, "status", None)
    if isinstance(error, TimeoutError):
        return f"no answer within {SECONDS:g} s"
    if isinstance(status, int):
        return f"it answered with status {status}, which no node of a chain does"
    return system_words(error) or str(getattr(error, "strerror", None) or type(error).__name__)
