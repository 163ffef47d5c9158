"""The keyword arguments of the client, as a type checker sees them, are the settings."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

from zmesh import MeshNetworkClient
from zmesh.arguments import SettingsArguments
from zmesh.config import Settings

ROOT = Path(__file__).parents[2]

WIDER = {"bootstrap": list[str] | tuple[str, ...], "state_dir": str}
"""What a setting takes besides the type that it is kept as."""

PROGRAM = """
from zmesh import MeshNetworkClient

MeshNetworkClient("a", heartbeat_interval=30, state_dir="state", bootstrap=["192.0.2.1:9090"], log_level=None)
MeshNetworkClient("a", heartbeat_intervall=30)
MeshNetworkClient("a", network=7)
"""


def test_they_are_the_settings_that_the_client_does_not_name_itself() -> None:
    named = {name for name in inspect.signature(MeshNetworkClient).parameters if name in Settings.model_fields}
    assert named == {"peer_id", "listen_port", "blockchain_rpc", "private_key", "registry"}

    arguments, settings = get_type_hints(SettingsArguments), get_type_hints(Settings)
    assert [*arguments] == [name for name in Settings.model_fields if name not in named]
    wrong = [name for name, hint in arguments.items() if hint != settings[name] | WIDER.get(name) | None]
    assert wrong == []


def test_mypy_tells_misspelt_and_wrong_arguments(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    # With the options and the cache of ``make types``, or it would take several times as long.
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(program)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # What it may say about zmesh itself depends on the stubs of the libraries beside it, and a user never sees it.
    told = re.findall(rf"^{re.escape(str(program))}:(\d+): error: .+  \[(.+)\]$", checked.stdout, re.MULTILINE)
    assert told == [("5", "call-arg"), ("6", "arg-type")], checked.stdout + checked.stderr
