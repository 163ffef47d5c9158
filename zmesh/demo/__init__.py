"""``zmesh demo``: validators, each a process of its own, learn to read handwritten digits together.

What is real: the processes, the keys, the encryption, the signatures, the pictures, the learning. What is generated for
the run: the keys and the registry file; with ``--chain`` a chain on this machine stands in for the file, and no list
exists. One validator coordinates. In each round it announces the model by gossip, every validator trains on pictures of
its own and sends what it learnt straight back, and the coordinator averages.

Files: ``digits`` is the learning, ``validator`` one process of the mesh, ``processes`` starts and ends them, ``stage``
runs the course of events, ``ground`` is what they stand on (a registry file, or a chain: ``chopsticks``, ``npm``,
``accounts``), ``score`` is what was measured, ``screen`` shows it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from zmesh.core.errors import ConfigError, ZmeshError

MOST = 50
"""Validators: each is a process of about 60 MB."""
BLOCK_SECONDS = 6.0
"""Seconds between two blocks, as on Polkadot."""
INSTALL = 'the demo needs scikit-learn and its pictures: run `pip install "zmesh-net[demo]"`'


def run_demo(
    peers: int = 10, rounds: int = 5, as_json: bool = False, plain: bool = False, on_chain: bool = False
) -> int:
    """Run the demo with ``peers`` validators for ``rounds`` rounds, shown on stdout; returns the exit status.

    ``as_json``: one JSON object at the end instead. ``plain``: lines even on a terminal. ``on_chain``: a Substrate
    chain says who belongs, and signed records say where they are. The status is 0 if nothing was missed and the
    accuracy is above 0.9, 1 if not, 2 if the demo cannot run here, 130 after Ctrl-C, 143
    after SIGTERM.

    Raises ``ConfigError`` for numbers out of range.
    """
    if not 2 <= peers <= MOST:
        raise ConfigError(f"--peers must be from 2 to {MOST}, not {peers}")
    if not 1 <= rounds <= 1000:
        raise ConfigError(f"--rounds must be from 1 to 1000, not {rounds}")
    from typer import echo

    if importlib.util.find_spec("sklearn") is None:
        echo(INSTALL, err=True)
        return 2
    from zmesh.demo.ground import ChainGround, FileGround
    from zmesh.demo.screen import Silence, screen, summary
    from zmesh.demo.stage import perform

    try:
        with Silence() if as_json else screen(plain) as shown:
            score = asyncio.run(perform(peers, rounds, ChainGround if on_chain else FileGround, shown.show))
    except ZmeshError as error:
        echo(f"the demo failed: {error}", err=True)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError) as end:
        echo("stopped; no process is left", err=True)
        return 130 if isinstance(end, KeyboardInterrupt) else 143
    echo(json.dumps(score.to_dict(), indent=2) if as_json else f"\n{summary(score)}")
    return 1 if score.problems else 0


def run_chain(names: Sequence[str], port: int) -> int:
    """Run a chain on this machine whose validators are the accounts of these names (``//Alice``); returns the exit
    status.

    It ends with Ctrl-C or SIGTERM. Raises ``ConfigError`` for other names.
    """
    from typer import echo

    wrong = [name for name in names if not name.startswith("//") or not name[2:].isalnum()]
    if wrong or not names:
        raise ConfigError(f"validators must be names such as //Alice, not {wrong[0] if wrong else 'nobody'}")
    try:
        asyncio.run(_run_chain(names, port))
    except ZmeshError as error:
        echo(str(error), err=True)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        echo("stopped; the chain is gone", err=True)
    return 0


async def _run_chain(names: Sequence[str], port: int) -> None:
    from typer import echo

    from zmesh.demo.accounts import dev_account
    from zmesh.demo.chopsticks import Chopsticks, session

    task = asyncio.current_task()
    assert task is not None  # a running coroutine is in one
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    accounts = await asyncio.to_thread(lambda: [dev_account(name) for name in names])
    with tempfile.TemporaryDirectory(prefix="zmesh-chain-") as folder:
        chain = Chopsticks(session([one.address for one in accounts]), Path(folder), port=port)
        try:
            await asyncio.to_thread(chain.start)
            echo(f"{chain.url} is a chain whose validators are {', '.join(names)}")
            while True:
                await asyncio.sleep(BLOCK_SECONDS)
                await chain.new_block()
        finally:
            chain.stop()
