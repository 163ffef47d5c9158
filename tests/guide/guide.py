"""Reads ``snippets.md``, puts real values in place of the guide's placeholders, and runs the result.

Rules
 1. What stands in ``snippets.md`` is the guide's text; nothing but ``SUBSTITUTIONS`` changes it before it runs.
 2. A substitution whose original is not found is an error: the table never holds more than is done.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

PYTHON, SHELL, YAML = "python", "bash", "yaml"


class Substitution(NamedTuple):
    snippet: str
    original: str
    replacement: str
    """A word in capitals between ``<`` and ``>`` is a value that the test knows."""
    why: str


class Snippet(NamedTuple):
    language: str
    text: str


ELSEWHERE = "the guide was written for an older package; its names are zmesh's now"
ANY_PORT = "nodes of tests take any free port"
NO_CHAIN = "there is no chain here to ask"

SUBSTITUTIONS = (
    Substitution("Basic Usage", "from blockchain import", "from zmesh import", ELSEWHERE),
    Substitution("Basic Usage", "listen_port=9090", "listen_port=0", ANY_PORT),
    Substitution("Python Configuration", "from blockchain import", "from zmesh import", ELSEWHERE),
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


def snippets() -> dict[str, Snippet]:
    """All blocks of code by their heading, in their order."""
    text = Path(__file__).with_name("snippets.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^## (.+?)\n\n```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {name: Snippet(language, code) for name, language, code in blocks}


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
    return text


async def run(text: str, **names: Any) -> dict[str, Any]:
    """Run Python, which may await, as if it stood in a program where ``names`` mean something; its variables."""
    variables: dict[str, Any] = dict(names)
    compiled = compile(text, "<the guide>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(compiled, CodeType)
    outcome = eval(compiled, variables)
    if inspect.isawaitable(outcome):
        await outcome
    return variables
