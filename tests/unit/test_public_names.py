"""What an application may import: it is there, a strict type checker finds it, and importing it is quick."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import zmesh
from zmesh import registry
from zmesh.registry import port

ROOT = Path(__file__).parents[2]

PUBLIC = {
    "zmesh": {"MeshNetworkClient", "MessageHandler", "PayloadTooLargeError", "Settings"},
    "zmesh.handlers": {"Delta", "Equivocation", "Proposal", "Round", "RoundState", "Tally"},
    "zmesh.registry": {*("EMPTY_ROSTER", "Account", "Endpoint", "Member", "PeerKey", "Roster", "ValidatorSet")},
    "zmesh.testing": {"Nodes", "Validators", "mesh"},
    "zmesh.transports.simulator": {"Delivery", "Offence", "Publication", "Report", "Simulation", "SimulationSettings"},
}
"""Public modules, with names that must be among those that they export."""

INTERNAL = {"WireError", "CancelledError"}
"""Errors that do not reach a caller, and the one that every coroutine may end with."""


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_there(module: str) -> None:
    exported = import_module(module).__all__
    assert len(exported) == len(set(exported))
    assert PUBLIC[module] <= set(exported)
    assert [name for name in exported if not hasattr(import_module(module), name)] == []


def test_a_strict_type_checker_finds_every_public_name(tmp_path: Path) -> None:
    """It takes what a module imports for its own use as private to it."""
    program = tmp_path / "program.py"
    lines = [f"from {module} import {name} as {name}_" for module in PUBLIC for name in import_module(module).__all__]
    program.write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", str(program)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # What it may say about zmesh itself depends on the stubs of the libraries beside it, and a user never sees it.
    *told, summary = checked.stdout.splitlines()
    assert [line for line in told if line.startswith(f"{program}:")] == []
    assert "1 source file" in summary, checked.stdout + checked.stderr


def test_every_error_that_is_documented_for_callers_is_public() -> None:
    files = [*ROOT.glob("zmesh/*.py"), *ROOT.glob("handlers/*.py"), ROOT / "zmesh/registry/port.py"]
    text = "".join(file.read_text(encoding="utf-8") for file in [*files, *ROOT.glob("transports/simulat*.py")])
    named = set(re.findall(r"``(\w+Error)``", text)) - INTERNAL
    assert named >= {"PayloadTooLargeError", "SelfHarmError"}
    assert [name for name in sorted(named) if not hasattr(builtins, name) and name not in zmesh.__all__] == []


def test_importing_zmesh_imports_no_slow_library() -> None:
    slow = "{'pydantic', 'pydantic_settings', 'aiohttp', 'structlog', 'typer', 'rich', 'substrateinterface'}"
    script = f"import sys, zmesh, zmesh.registry; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_zmesh_imports_nothing_else_of_it() -> None:
    script = "import sys, zmesh; print(sorted(name for name in sys.modules if name.startswith('zmesh.')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "['zmesh.version']\n"
    assert "MessageHandler" in dir(zmesh)


def test_whoever_writes_a_registry_finds_its_port_where_the_client_says() -> None:
    names = ["Account", "OnChange", "Registry", "RegistryStatus", "ValidatorSet"]
    assert set(names) <= set(registry.__all__)
    assert [getattr(registry, name) for name in names] == [getattr(port, name) for name in names]
