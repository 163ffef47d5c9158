"""The command line: run a node, make keys, check a registry file, query a node's health, watch ten nodes at work.

Rules
 1. An error is one sentence on standard error and an exit status, never a traceback: 2 for bad input, 3 for what this
    machine cannot do. Status 1 means that the answer is "no". ``STATUSES`` lists them all. Where ``run`` logs JSON, the
    sentence is in a log line instead.
 2. Standard output carries the answer and nothing else, so that a script can read it.
 3. Each command imports what it needs when it runs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zmesh.cli_keys import keys
from zmesh.core.errors import ConfigError, ZmeshError

if TYPE_CHECKING:
    from zmesh.config import Settings

NAME = "zmesh"
NO, WRONG_INPUT, UNABLE = 1, 2, 3
STATUSES = """
Exit status: 0 if all is well; 1 if the answer is no (an unhealthy node, a demo that missed something); 2 if the
input is wrong (an option, a setting, a file); 3 if this machine cannot run a node safely (a failed self-test); 130
after Ctrl-C and 143 after SIGTERM, but 0 from `run` and `chain`, which end in no other way once they have begun.
"""

HEALTH_SECONDS = 3.0
"""Seconds that ``zmesh health`` waits: below the usual timeouts of container health checks."""
SCHEME = "http://"
MAX_HEALTH = 64 * 1024
"""Most bytes of an answer that ``zmesh health`` reads."""

app = typer.Typer(
    epilog=" ".join(STATUSES.split()),
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""click's class. typer bundles click, and has no public name for this one."""
registries = typer.Typer(help="Check files of validators.", no_args_is_help=True)
app.add_typer(keys, name="key")
app.add_typer(registries, name="registry")


def main() -> None:
    """Run a command; an error becomes one sentence and its exit status."""
    try:
        status = app(prog_name=NAME, standalone_mode=False)
    except ZmeshError as error:
        problem, status = str(error), _status_of(error)
    except typer.Abort:
        problem, status = "aborted", NO
    except UsageError as error:
        problem, status = _misuse(error), WRONG_INPUT
    else:
        problem = ""
    if problem:
        typer.echo(problem if "\n" in problem else f"{NAME}: {problem}", err=True)
    sys.exit(status)


def _status_of(error: ZmeshError) -> int:
    return WRONG_INPUT if isinstance(error, ConfigError) else UNABLE


def _misuse(error: Any) -> str:
    """click's message about a command or an option, in our words; the help itself if no command was named."""
    said = str(error.format_message())
    if error.ctx is None or said == error.ctx.get_help():
        return said
    said = " ".join(said.split()).rstrip(".")
    return f"{said[:1].lower()}{said[1:]} (see `{error.ctx.command_path} --help`)"


# ---------------------------------------------------------------- a node


@app.command()
def run(
    peer_id: Annotated[str | None, typer.Option(help="This node's name.  [MESH_PEER_ID]")] = None,
    listen_port: Annotated[
        str | None, typer.Option(metavar="PORT", help="The port of this node's front door.  [MESH_LISTEN_PORT]")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="This node's key file.  [MESH_PRIVATE_KEY]")] = None,
    registry: Annotated[
        str | None, typer.Option(metavar="PATH", help="The file of validators, or substrate.  [MESH_REGISTRY]")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.  [MESH_LOG_LEVEL]")] = None,
) -> None:
    """Run a node until SIGINT or SIGTERM.

    Every setting can be given as an environment variable; an option overrides its variable. zmesh.config.Settings
    documents them all.
    """
    from zmesh.config import Settings, suspicious_variables
    from zmesh.log import configure, get_logger

    log = get_logger(__name__)
    given = {
        "peer_id": peer_id,
        "listen_port": listen_port,
        "private_key": key,
        "registry": registry,
        "log_level": log_level,
    }
    settings = Settings(**given)
    is_json = configure(settings.log_level, settings.log_format)
    for sentence in suspicious_variables(os.environ):
        log.warning("suspicious_variable", problem=sentence)
    if settings.private_key is None:
        hint = "make a permanent one with `zmesh key new PATH`, and set MESH_PRIVATE_KEY to its path"
        log.warning("temporary_key", effect="this node has a new identity after each start", hint=hint)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(_run_until_told(settings))
        except ZmeshError as error:
            if not is_json:
                raise
            log.error("start_failed", problem=str(error))  # in place of the sentence, which is not JSON
            raise typer.Exit(_status_of(error)) from None


async def _run_until_told(settings: Settings) -> None:
    from zmesh.client import MeshNetworkClient
    from zmesh.log import get_logger
    from zmesh.status import NOBODY

    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    mesh = MeshNetworkClient(settings=settings)
    starting, waiting = loop.create_task(mesh.start()), loop.create_task(told.wait())
    try:
        # A start may wait seconds for a chain; a signal ends it meanwhile.
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if told.is_set():
            starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
            if NOBODY in mesh.health().get("warnings", ()):  # every other warning has a log line of its own
                get_logger(__name__).warning("health_warning", problem=NOBODY)
            await waiting
    finally:
        waiting.cancel()
        await mesh.stop()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop if the extra of that name is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@app.command()
def health(
    address: Annotated[
        str | None,
        typer.Argument(help="HOST:PORT, or http://HOST:PORT; by default this machine and MESH_LISTEN_PORT."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Count a degraded node as a failure.")] = False,
) -> None:
    """Ask a node for its health and print the answer.

    Exit status 0 if it is running (with --strict: and healthy), else 1. Made for container health checks, where
    restarting a node that merely reaches nobody would not help.
    """
    import json

    text = _get_health(address or _own_address())
    typer.echo(text)
    try:
        said = json.loads(text)
        well = said["running"] is True and (said["status"] == "healthy" or not strict)
    except (ValueError, KeyError, TypeError):
        well = False
    if not well:
        raise typer.Exit(NO)


def _own_address() -> str:
    """Where this machine's node listens, from its environment variables; asking pydantic would take a second."""
    host = os.environ.get("MESH_LISTEN_HOST") or "0.0.0.0"  # noqa: S104 - compared, not bound
    port = os.environ.get("MESH_LISTEN_PORT") or "9090"
    local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"{local}:{port}"


def _get_health(address: str) -> str:
    from http.client import HTTPConnection, HTTPException

    from zmesh.multiaddr import parse_endpoint

    # The path of a URL pasted from a curl command is ignored: there is only one path to ask.
    place = address.removeprefix(SCHEME).partition("/")[0] if address.startswith(SCHEME) else address
    endpoint = parse_endpoint(place)
    connection = HTTPConnection(endpoint.host, endpoint.port, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        if answer.status == 200:
            return answer.read(MAX_HEALTH).decode(errors="replace").strip()
        problem = f"answers with status {answer.status}"
    except (OSError, HTTPException) as error:
        problem = f"does not answer: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"
    finally:
        connection.close()
    typer.echo(f"zmesh: {endpoint} {problem}", err=True)
    raise typer.Exit(NO)


# ---------------------------------------------------------------- what a node needs


@registries.command("check")
def registry_check(path: Annotated[Path, typer.Argument(help="The TOML file.")]) -> None:
    """Check a file of validators as a node would, and summarise it."""
    from zmesh.files import read_regular
    from zmesh.registry.roster_file import MAX_FILE, parse_roster

    source = f"registry {path}"
    members = parse_roster(read_regular(path, source, MAX_FILE + 1)[0], source).members
    validators = sum(member.is_validator for member in members)
    stake = sum(member.stake for member in members)
    hidden = sum(not member.endpoints for member in members)
    said = [_several(len(members), "member"), _several(validators, "validator"), f"stake {stake}"]
    typer.echo(f"{path}: {', '.join(said)}, {hidden} without an address")


def _several(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


# ---------------------------------------------------------------- about zmesh


@app.command()
def demo(
    peers: Annotated[int, typer.Option(help="Validators, each in its own process.")] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds of federated learning.")] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, and nothing else.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print lines instead of a table, as is done without a terminal.")
    ] = False,
    on_chain: Annotated[
        bool, typer.Option("--chain", help="Let a Substrate chain decide who belongs, not a list. Needs node and npm.")
    ] = False,
) -> None:
    """Watch validators train a real model together over an encrypted mesh on this machine.

    Needs the extra `demo`. Exit status 1 if any message was missed.
    """
    from zmesh.demo import run_demo

    raise typer.Exit(run_demo(peers=peers, rounds=rounds, as_json=as_json, plain=plain, on_chain=on_chain))


@app.command()
def chain(
    validators: Annotated[
        list[str], typer.Argument(metavar="//NAME...", help="Its validators, such as //Alice //Bob.")
    ],
    port: Annotated[int, typer.Option(help="The port it listens on, on loopback; 0 takes any free one.")] = 9944,
) -> None:
    """Run a Substrate chain on this machine to try things out: its validators are well-known development accounts.

    Needs node and npm; a genuine runtime is installed the first time. Ends with Ctrl-C and keeps nothing.
    """
    from zmesh.demo import run_chain

    raise typer.Exit(run_chain(validators, port))


def _versions() -> str:
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    import zmq

    from zmesh.core import build

    def of(distribution: str) -> str:
        try:
            return installed(distribution)
        except PackageNotFoundError:
            return "(not installed)"

    libraries = f"core {build()}, pyzmq {of('pyzmq')}, libzmq {zmq.zmq_version()}, pynacl {of('pynacl')}"
    return f"zmesh-net {of('zmesh-net')} ({libraries}, Python {platform.python_version()})"


def _print_versions(is_asked: bool) -> None:
    if is_asked:
        typer.echo(_versions())
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_versions, is_eager=True, help="Print the versions and exit.")
    ] = False,
) -> None:
    """Signed, encrypted, brokerless messaging for validators."""


@app.command()
def version() -> None:
    """Print the versions that a bug report needs."""
    typer.echo(_versions())
