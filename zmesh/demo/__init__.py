"""``zmesh demo``: validators, each a process of its own, learn to read handwritten digits together.

What is real: the processes, the keys, the encryption, the signatures, the pictures, the learning. What is generated for
the run: the keys and the registry file; with ``--chain`` a chain on this machine stands in for the file, and nobody
lists anybody. One validator coordinates. In each round it announces the model by gossip,
everybody trains on pictures of their own and sends what they learnt straight back, and the coordinator averages.

Files: ``digits`` is the learning, ``validator`` one process of the mesh, ``processes`` starts and ends them, ``stage``
has the course of events, ``ground`` what they stand on (a chain: ``chopsticks``, ``npm``, ``accounts``), ``score`` what
was measured, ``screen`` shows it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json

from zmesh.core.errors import ConfigError, ZmeshError

MOST = 50
"""Validators: each is a process of about 60 MB."""
INSTALL = 'the demo needs scikit-learn and its pictures: `pip install "zmesh-net[demo]"` installs it'


def run_demo(
    peers: int = 10, rounds: int = 5, as_json: bool = False, plain: bool = False, on_chain: bool = False
) -> int:
    """Run the demo with ``peers`` validators for ``rounds`` rounds, shown on stdout; gives the exit status.

    ``as_json``: one JSON object at the end instead. ``plain``: lines even on a terminal.
    ``on_chain``: a Substrate chain says who belongs, and signed records where they are. The status is 0 when nothing
    was missed and the accuracy is above 0.9, 1 when not, 2 when the demo cannot run here, 130 after Ctrl-C or SIGTERM.

    Raises ``ConfigError`` for numbers out of range.
    """
    if not 2 <= peers <= MOST:
        raise ConfigError(f"--peers is {peers}: from 2 to {MOST} is right")
    if not 1 <= rounds <= 1000:
        raise ConfigError(f"--rounds is {rounds}: from 1 to 1000 is right")
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
    except (KeyboardInterrupt, asyncio.CancelledError):
        echo("stopped; no process is left", err=True)
        return 130
    echo(json.dumps(score.to_dict(), indent=2) if as_json else f"\n{summary(score)}")
    return 1 if score.problems else 0
