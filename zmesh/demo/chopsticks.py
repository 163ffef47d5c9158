"""A Substrate chain on this machine: chopsticks runs a genuine runtime behind the ordinary JSON-RPC.

Rules
 1. Each chain is one process, on a free port of loopback, ended by its id. When this process dies, its stdin ends and
    it exits.
 2. There is no timer: a block is built on request, and is final at once. Nothing is kept: a restarted chain begins at
    its genesis, with the storage it was given so far.
 3. Waits are for its output (the port), its end or its answer, each with a deadline.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp

from zmesh.core.errors import ZmeshError
from zmesh.demo.npm import Installed, install

START_SECONDS = 90.0
"""Seconds until the port is open: 3 on a quiet machine, and the first block takes a busy one long."""
ANSWER_SECONDS = 60.0
"""Seconds for one answer: a block takes half a second."""
END_SECONDS = 10.0
"""Seconds that it may take to end after it was asked to, and again after it was killed."""
LINES = 40
"""Lines of its output that are kept, for the reason if it fails."""
HOST = "127.0.0.1"

_LISTENS = "RPC listening on "
# Ends node when its stdin does: however the parent ended, the pipe ends with it. Workers are told to import this, too,
# and have a stdin of their own that ends at once.
_LEASH = (
    "data:text/javascript,import {isMainThread} from 'node:worker_threads';"
    "if (isMainThread) process.stdin.on('close', () => process.exit()).on('error', () => process.exit()).resume()"
)

# Parachains.set_heads([]), unsigned: the first runtime of Polkadot panics on a block without it.
_STAKING_BLOCK = {"transactions": ["0x1004140000"]}

Storage = Mapping[str, Mapping[str, Any]]
"""Pallet -> item -> value, as chopsticks takes it: accounts as SS58 or hex; for a map, a list of [[keys], value]."""


def session(accounts: Sequence[str]) -> Storage:
    """Storage in which exactly these accounts (SS58) validate, and none is queued for the next session."""
    return {"Session": {"Validators": list(accounts), "QueuedKeys": []}}


class ChopsticksError(ZmeshError):
    """The chain did not start, or refused a request."""


class Chopsticks:
    """One chain in a process of its own.

    ``storage`` is the state of the first block. ``staking``: run a relay chain with Staking (``Installed.staking``)
    instead of one with collators (``Installed.collators``). ``port``: 0 takes any free one. Use it as a context
    manager, or call ``start`` and ``stop``; these block for seconds, so a coroutine must call them in a thread.
    """

    def __init__(self, storage: Storage, folder: Path, *, staking: bool = False, port: int = 0) -> None:
        self._installed: Installed | None = None
        self._staking = staking
        self._config = folder / "chopsticks.json"
        self._storage: dict[str, dict[str, Any]] = {pallet: dict(items) for pallet, items in storage.items()}
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._said: deque[str] = deque(maxlen=LINES)
        self._port = port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it is reached, for ``blockchain_rpc``. A restart keeps it."""
        return f"ws://{HOST}:{self._port}"

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None, "start it first"
        return self._process.pid

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Install what is needed, and return once the port is open; a restart uses the same port as before.

        Raises ``NoChainError`` if this machine cannot run it, ``ChopsticksError`` if it does not start.
        """
        installed = self._installed = self._installed or install()
        config = {
            "genesis": str(installed.staking if self._staking else installed.collators),
            "host": HOST,
            "port": self._port,
            "build-block-mode": "Manual",
            "import-storage": self._storage,
        }
        self._config.write_text(json.dumps(config), encoding="utf-8")
        self._said.clear()
        self._process = process = subprocess.Popen(  # noqa: S603 - the program that npm installed for this
            [installed.node, "--import", _LEASH, str(installed.chopsticks), "--config", str(self._config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent, which ends this in an orderly way
        )
        ports: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, args=(process, ports), daemon=True, name="chopsticks")
        self._listener.start()
        try:
            port = ports.get(timeout=START_SECONDS)
        except queue.Empty:
            self.kill()
            raise ChopsticksError(f"the chain did not come up within {START_SECONDS:.0f} s: {self._last()}") from None
        if port is None:
            self.kill()
            raise ChopsticksError(f"the chain ended while it was starting: {self._last()}")
        if self._port not in {0, port}:
            self.kill()
            raise ChopsticksError(f"port {self._port} is in use: stop what listens there, or choose another port")
        self._port = port

    def _listen(self, process: subprocess.Popen[str], ports: queue.SimpleQueue[int | None]) -> None:
        """Read its output to the end: a full pipe would block it."""
        assert process.stdout is not None  # a pipe was asked for
        for line in process.stdout:
            self._said.append(line.rstrip())
            if _LISTENS in line:
                ports.put(int(line.rpartition(":")[2]))
        ports.put(None)

    def _last(self) -> str:
        # Its own error message comes before node's stack trace.
        telling = [line for line in self._said if "rror" in line] or list(self._said) or ["it said nothing"]
        return telling[0].strip()

    def hang(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nothing is answered."""
        assert self._process is not None, "start it first"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it continue after ``hang``."""
        assert self._process is not None, "start it first"
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        process = self._release()
        if process is not None:
            process.kill()
            self._reap(process)

    def stop(self) -> None:
        """End it. Safe to call twice, before ``start``, and while ``start`` waits in another thread."""
        process = self._release()
        if process is None:
            return
        process.terminate()
        # A frozen process receives SIGTERM only once it continues.
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reap(process)

    def _release(self) -> subprocess.Popen[str] | None:
        """The process for the first caller, None for later ones."""
        process, self._process = self._process, None
        return process

    def _reap(self, process: subprocess.Popen[str]) -> None:
        process.wait(END_SECONDS)
        if self._listener is not None:
            self._listener.join(END_SECONDS)
        process.__exit__(None, None, None)  # closes the pipes

    # ------------------------------------------------------------ asking

    async def rpc(self, method: str, *parameters: Any) -> Any:
        """The chain's answer. Raises ``ChopsticksError`` if it refuses or does not answer."""
        question = {"id": 1, "jsonrpc": "2.0", "method": method, "params": list(parameters)}
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_SECONDS)) as session,
                session.post(f"http://{HOST}:{self._port}", json=question) as response,
            ):
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ChopsticksError(f"the chain does not answer {method}: {error!r}") from None
        if "error" in answer:
            raise ChopsticksError(f"the chain refuses {method}: {answer['error'].get('message')}")
        return answer["result"]

    async def new_block(self, count: int = 1, **options: Any) -> str:
        """Build blocks, each final at once; returns the last one's hash. ``options`` are those of ``dev_newBlock``."""
        needed = _STAKING_BLOCK if self._staking else {}
        return str(await self.rpc("dev_newBlock", {"count": count, **needed, **options}))

    async def set_storage(self, storage: Storage) -> None:
        """Change the state of the newest block in place; a restarted chain begins with the change."""
        for pallet, items in storage.items():
            self._storage.setdefault(pallet, {}).update(items)
        await self.rpc("dev_setStorage", storage)

    async def set_validators(self, accounts: Sequence[str]) -> str:
        """Make exactly these (SS58) the validators from the next block on, which is built here. Returns its hash."""
        await self.set_storage(session(accounts))
        return await self.new_block()

    async def set_head(self, block: str | int) -> None:
        """Go back to a block, by hash or number: whatever came after it never happened."""
        await self.rpc("dev_setHead", block)

    async def genesis(self) -> bytes:
        """32 bytes, the hash of block 0."""
        return bytes.fromhex(str(await self.rpc("chain_getBlockHash", 0)).removeprefix("0x"))

    async def head(self) -> tuple[int, str]:
        """Number and hash of the newest block, which is final."""
        found = str(await self.rpc("chain_getFinalizedHead"))
        header = await self.rpc("chain_getHeader", found)
        return int(header["number"], 16), found
