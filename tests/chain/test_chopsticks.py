"""The chain that the other tests stand on: it builds, hangs, dies, comes back, and leaves nothing."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from zmesh.demo import npm
from zmesh.demo.chopsticks import Chopsticks, ChopsticksError
from zmesh.demo.npm import Installed, NoChainError, NoNodeError, install

ALICE, BOB = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
VALIDATORS = "0xcec5070d609dd3497f72bde07fc96ba088dcde934c658227ee1dfafcd6e16903"
"""The key of Session.Validators: twox128 of both names."""
ONE = "0x04d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"
BOTH = "0x08" + ONE[4:] + "8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48"
PARENT = """
import sys
from pathlib import Path
from zmesh.demo.chopsticks import Chopsticks
chain = Chopsticks({}, Path(sys.argv[1]))
chain.start()
print(chain.pid, flush=True)
sys.stdin.read()
"""
SECONDS = 60.0


async def test_it_builds_blocks_takes_storage_and_goes_back(chain: Chopsticks) -> None:
    await chain.set_validators([ALICE])
    number, first = await chain.head()
    assert await chain.rpc("state_getStorage", VALIDATORS) == ONE
    await chain.new_block()  # for storage is changed in the newest block, and seen from the next one on
    third = await chain.set_validators([ALICE, BOB])
    assert await chain.head() == (number + 2, third)
    assert await chain.rpc("state_getStorage", VALIDATORS) == BOTH
    await chain.set_head(first)
    assert await chain.head() == (number, first)
    assert await chain.rpc("state_getStorage", VALIDATORS) == ONE


async def test_what_it_refuses_is_one_sentence(chain: Chopsticks) -> None:
    with pytest.raises(ChopsticksError) as refused:
        await chain.rpc("chain_nonsense")
    assert str(refused.value) == "the chain refuses chain_nonsense: Method not found: chain_nonsense"


async def test_it_hangs_and_goes_on_dies_and_comes_back_on_its_port(
    chain: Chopsticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.hang()
    monkeypatch.setattr("zmesh.demo.chopsticks.ANSWER_SECONDS", 0.2)
    with pytest.raises(ChopsticksError, match="does not answer chain_getFinalizedHead"):
        await chain.head()
    monkeypatch.undo()
    chain.resume()
    await chain.head()
    url = chain.url
    await chain.set_storage({"Session": {"Validators": [ALICE, BOB]}})
    await asyncio.to_thread(chain.kill)
    with pytest.raises(ChopsticksError, match="does not answer"):
        await chain.head()
    await asyncio.to_thread(chain.start)
    assert chain.url == url
    assert (await chain.head())[0] == 1
    assert await chain.rpc("state_getStorage", VALIDATORS) == BOTH


def test_it_ends_with_whoever_started_it(installed: Installed, tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
    finally:
        parent.kill()
        parent.communicate()
    _, left = psutil.wait_procs([child], timeout=SECONDS)
    assert left == []


def test_a_chain_that_cannot_start_says_why(installed: Installed, tmp_path: Path) -> None:
    with pytest.raises(ChopsticksError) as refused:
        Chopsticks({"Sesion": {"Validators": [ALICE]}}, tmp_path).start()
    assert str(refused.value).startswith("the chain ended while it was starting: ")
    assert "Sesion" in str(refused.value)


@pytest.mark.parametrize("missing", ["node", "npm"])
def test_without_node_or_npm_it_says_so_in_one_sentence(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else which(name) or "/bin/false")
    with pytest.raises(NoNodeError) as refused:
        install()
    assert str(refused.value) == f"a chain on this machine needs node and npm, but {missing} is not installed"


def test_a_failed_installation_leaves_nothing_that_looks_whole(
    installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(npm.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(npm, "PACKAGES", ("./nowhere",))
    with pytest.raises(NoChainError, match=r"^`npm install` failed: npm error") as failed:
        install()
    assert not isinstance(failed.value, NoNodeError)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
