"""``zmesh demo --chain``: processes that only know a chain, a delegation and one address, and leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import psutil

from zmesh.demo.npm import Installed

ROOT = Path(__file__).parents[2]
SECONDS = 180.0


async def test_validators_named_by_a_chain_learn_together_and_leave_nothing_behind(
    installed: Installed, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "zmesh", "demo", "--chain", "--peers", "3", "--rounds", "2", "--json"),
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    before = {child.pid for child in psutil.Process().children(recursive=True)} - {process.pid}
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    said = json.loads(out)
    assert (said["ok"], said["validators"], said["problems"]) == (True, 3, [])
    assert said["deltas"] == {"delivered": 4, "expected": 4}
    assert os.listdir(tmp_path) == []
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
