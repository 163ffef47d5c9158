"""What the demo's validators stand on: who decides which of them belong, and how they learn where the others are.

Rules
 1. Everything is in the demo's folder and is deleted with it.
 2. ``FileGround``: a registry file, in two versions as in real life: first who belongs, then, once the validators have
    bound their ports, where they are. They notice the change on their own.
 3. ``ChainGround``: a real chain says who belongs, and no list exists. Each validator has a delegation from its account
    and knows one address to start from; after that, signed records tell where the others are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol, Self

from zmesh.demo.chopsticks import Chopsticks, session
from zmesh.files import create_private, replace_private
from zmesh.identity import load_key

KEY_FILE = "mesh.key"


class Ground(Protocol):
    """The stage calls ``prepare``, then for each of ``waves`` the ``settings`` of its validators."""

    preparing: str
    """What ``prepare`` does, in a few words."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def prepare(self, names: Sequence[str]) -> None:
        """Make what is needed before the first validator starts; each has a folder with a key."""
        ...

    def waves(self, names: Sequence[str]) -> Sequence[Sequence[str]]:
        """Groups that start together; each one starts once the one before listens."""
        ...

    def settings(self, name: str, ports: Mapping[str, int]) -> dict[str, str]:
        """Arguments for a validator's client, besides its name and key. ``ports``: of the validators that listen by
        now."""
        ...

    def listening(self, ports: Mapping[str, int]) -> None:
        """All validators listen."""
        ...


class FileGround:
    """A TOML file that lists all validators."""

    preparing = "writing the registry"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "registry.toml"
        self._keys: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return

    async def prepare(self, names: Sequence[str]) -> None:
        """Write down who belongs."""
        self._keys = {name: load_key(self._folder / name / KEY_FILE).public.hex() for name in names}
        self.listening({})

    def waves(self, names: Sequence[str]) -> Sequence[Sequence[str]]:
        """All at once."""
        return [names]

    def settings(self, name: str, ports: Mapping[str, int]) -> dict[str, str]:
        """Where the file is."""
        return {"registry": str(self._file)}

    def listening(self, ports: Mapping[str, int]) -> None:
        """Write down who belongs and, as far as known, where."""
        entries = []
        for name, key in self._keys.items():
            address = f'"/ip4/127.0.0.1/tcp/{ports[name]}"' if name in ports else "[]"
            entries.append(
                f'[[validator]]\npeer_id = "{name}"\naccount = "account of {name}"\npublic_key = "{key}"\n'
                f"address = {address}\nstake = 1000\n"
            )
        replace_private(self._file, "\n".join(entries).encode())


class ChainGround:
    """A chain whose Session.Validators are the accounts //v0, //v1 ..."""

    preparing = "starting a chain"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._chain: Chopsticks | None = None
        self._first = ""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def prepare(self, names: Sequence[str]) -> None:
        """Start the chain with their accounts, and have each account sign for its validator's key."""
        from zmesh.demo.accounts import dev_account

        accounts = await asyncio.to_thread(lambda: [dev_account(f"//v{number}") for number in range(len(names))])
        self._chain = chain = Chopsticks(session([one.address for one in accounts]), self._folder)
        self._stack.callback(chain.stop)
        await asyncio.to_thread(chain.start)
        genesis = await chain.genesis()
        for name, account in zip(names, accounts, strict=True):
            mesh = load_key(self._folder / name / KEY_FILE)
            delegation = account.delegate(mesh, account.says(mesh, genesis))
            create_private(self._delegation(name), delegation.encoded.hex().encode())
        self._first = names[0]

    def _delegation(self, name: str) -> Path:
        return self._folder / name / "mesh.delegation"

    def waves(self, names: Sequence[str]) -> Sequence[Sequence[str]]:
        """First the one whose address the others know."""
        return [names[:1], names[1:]]

    def settings(self, name: str, ports: Mapping[str, int]) -> dict[str, str]:
        """The chain, the delegation, and the one address."""
        assert self._chain is not None  # prepared before
        given = {
            "registry": "substrate",
            "blockchain_rpc": self._chain.url,
            "delegation": str(self._delegation(name)),
            "state_dir": str(self._folder / name),
        }
        return given if name == self._first else {**given, "bootstrap": f"127.0.0.1:{ports[self._first]}"}

    def listening(self, ports: Mapping[str, int]) -> None:
        """Nothing to do: they find each other."""
