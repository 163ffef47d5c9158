"""Reads ``snippets.md``, puts real values in place of the guide's placeholders, and runs the result.

Rules
 1. What stands in ``snippets.md`` is the guide's text, to the byte; a formatter would change it, so none sees it.
 2. Before it runs nothing changes it but ``SUBSTITUTIONS``, and nothing is added to it but ``ADDITIONS``. Names that it
    uses and does not define are ``GIVEN``, variables of the environment ``VARIABLES``, and what ``USED`` names is all
    that is taken of a block that is no program.
 3. These tables are complete, for whatever they do not list is an error; and they hold no more than is done, for so is
    whatever is not there to be replaced.
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])

PYTHON, SHELL, YAML = "python", "bash", "yaml"


class Snippet(NamedTuple):
    language: str
    text: str


class Substitution(NamedTuple):
    snippet: str
    original: str
    replacement: str
    """A word in capitals between ``<`` and ``>`` is a value that the test knows."""
    why: str


class Addition(NamedTuple):
    """Lines of shell before and after a snippet."""

    snippet: str
    before: str
    after: str
    why: str


class Given(NamedTuple):
    """A name that these snippets use and do not define."""

    name: str
    snippets: tuple[str, ...]
    why: str


class Variable(NamedTuple):
    """Of the environment in which a snippet runs as a program."""

    snippet: str
    name: str
    why: str


ELSEWHERE = "the guide was written for an older package; its names are zmesh's now"
ANY_PORT = "nodes of tests take any free port"
NO_CHAIN = "there is no chain here to ask"
NO_REGISTRY = "there is no chain here: a file says who belongs"
CID = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPBdG"

SUBSTITUTIONS = (
    Substitution("Basic Usage", "from blockchain import", "from zmesh import", ELSEWHERE),
    Substitution("Basic Usage", "listen_port=9090", "listen_port=0", ANY_PORT),
    Substitution("Python Configuration", "from blockchain import", "from zmesh import", ELSEWHERE),
    Substitution("FL Round Announcement", "Qm...", CID, "a placeholder for a CID"),
    Substitution("Model Delta Transfer", "QmX...", CID, "a placeholder for a CID"),
    Substitution("Manual Peer Addition", "from blockchain.mesh_network import", "from zmesh import", ELSEWHERE),
    Substitution("Manual Peer Addition", "/ip4/192.168.1.100/tcp/9090", "/ip4/127.0.0.1/tcp/<PORT>", ANY_PORT),
    Substitution("Manual Peer Addition", "abc123...", "<KEY>", "a placeholder for 64 hex digits"),
    Substitution("Health Check Endpoint", "localhost:9090", "localhost:<PORT>", ANY_PORT),
    Substitution("Docker Compose", "MESH_LISTEN_PORT=9090", "MESH_LISTEN_PORT=0", ANY_PORT),
    Substitution("Docker Compose", "blockchain:9944", "127.0.0.1:9", NO_CHAIN),
    Substitution("Kubernetes", 'value: "9090"', 'value: "0"', ANY_PORT),
    Substitution(
        "Kubernetes", "valueFrom:", 'value: "nawal-validator-6c8d"', "what Kubernetes puts there: the pod's name"
    ),
    Substitution("Peers Not Discovered", "from blockchain import", "from zmesh import", ELSEWHERE),
    Substitution("Peers Not Discovered", "'test', 9090", "'test', 0", ANY_PORT),
    Substitution("Peers Not Discovered", "http://localhost:9944", "http://127.0.0.1:9 || true", NO_CHAIN),
    Substitution("Port Already in Use", "lsof -i :9090", "lsof -i :9090 || true", "here nothing listens there"),
)

_FETCH = "import sys, urllib.request as http; print(http.urlopen(sys.argv[1]).read().decode())"
_SHOW = 'python3 -c "from zmesh import Settings; print(Settings(%s).model_dump_json())"\n'

ADDITIONS = (
    Addition("Installation", "echo zmesh-net > requirements.txt\n", "", "the file that the older package came with"),
    Addition("Environment Variables", "set -a\n", _SHOW % "", "exports them, and shows what comes of them"),
    Addition(
        "Health Check Endpoint",
        "" if shutil.which("curl") else f"curl() {{ python3 -c '{_FETCH}' \"$1\"; }}\n",
        "",
        "where there is no curl: Python, under its name",
    ),
    Addition("Port Already in Use", "", _SHOW % "peer_id='validator_001'", "shows what comes of it"),
)

GIVEN = (
    Given(
        "mesh",
        (
            *("FL Round Announcement", "Model Delta Transfer", "Gossip Messages", "Automatic Discovery"),
            *("Manual Peer Addition", "Message Signing", "Peer Status", "Message Statistics"),
            *("Custom Message Handlers", "Messages Not Received"),
        ),
        "the reader's client, which `Basic Usage` makes",
    ),
    Given(
        "MessageType",
        ("Gossip Messages", "Message Signing", "Custom Message Handlers"),
        "`Basic Usage` imports it; here it comes from zmesh",
    ),
    Given("MeshMessage", ("Custom Message Handlers",), "the guide imports it nowhere; it comes from zmesh"),
    Given("upload_model", ("Custom Message Handlers",), "the reader's own: a coroutine that gives a CID"),
    Given("peer", ("Byzantine Resistance",), "one of `mesh.peers`"),
)

VARIABLES = (
    Variable(
        "Installation", "PIP_NO_INDEX", "it is installed already, as the guide says: nothing has to come from afar"
    ),
    Variable("Installation", "PIP_DRY_RUN", "a test leaves the environment as it found it"),
    Variable("Basic Usage", "MESH_REGISTRY", NO_REGISTRY),
    Variable("Basic Usage", "MESH_PRIVATE_KEY", "the file names the key, so it is made before"),
    Variable("Peers Not Discovered", "MESH_REGISTRY", NO_REGISTRY),
)
"""Beside those of every program of a test: ``MESH_LISTEN_HOST`` is loopback, and ``python3`` the one that runs this."""

USED = {
    "Docker Compose": "the environment: a container is a process with these variables",
    "Kubernetes": "the container's env; the service and the replicas are its own",
}


def snippets() -> dict[str, Snippet]:
    """All blocks of code by their heading, in their order."""
    text = Path(__file__).with_name("snippets.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^## (.+?)\n\n```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {name: Snippet(language, code) for name, language, code in blocks}


def runs(name: str) -> Callable[[Test], Test]:
    """A decorator: this test runs the snippet of that name."""
    assert name in snippets()
    return lambda test: test


def code(name: str, **values: object) -> str:
    """The snippet of that name with everything put in place. ``values``: for the words in capitals."""
    text = snippets()[name].text
    for substitution in SUBSTITUTIONS:
        if substitution.snippet == name:
            assert substitution.original in text, f"{name} has no {substitution.original!r} any more"
            text = text.replace(substitution.original, substitution.replacement)
    for word, value in values.items():
        assert f"<{word}>" in text, f"{name} has no <{word}>"
        text = text.replace(f"<{word}>", str(value))
    for addition in ADDITIONS:
        if addition.snippet == name:
            text = f"{addition.before}{text}{addition.after}"
    return text


def variables(name: str, settings: Mapping[str, str]) -> dict[str, str]:
    """These settings, which must be those of ``VARIABLES``."""
    assert settings.keys() == {variable.name for variable in VARIABLES if variable.snippet == name}
    return dict(settings)


async def run(snippet: str, placeholders: Mapping[str, object] | None = None, **names: Any) -> dict[str, Any]:
    """Run a snippet of Python, which may await, in a program where ``names`` mean something; its variables."""
    assert names.keys() == {given.name for given in GIVEN if snippet in given.snippets}
    defined: dict[str, Any] = dict(names)
    text = code(snippet, **(placeholders or {}))
    compiled = compile(text, "<the guide>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(compiled, CodeType)
    outcome = eval(compiled, defined)
    if inspect.isawaitable(outcome):
        await outcome
    return defined
