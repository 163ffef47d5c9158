"""The rules of the house that no tool holds: layers, sizes, honest tests, and what is in the wheel."""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ("zmesh", "transports", "handlers")
EVERYTHING = (*LIBRARY, "tests", "benchmarks", "examples")

# Lowest first; a module imports its own layer and those below it.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"core"}),
    frozenset(
        {
            "transport",
            "version",
            "arguments",
            "aside",
            "log",
            "log_limit",
            "files",
            "forked",
            "multiaddr",
            "identity",
            "delegation",
            "account",
            "genesis",
            "rpc",
            "ss58",
        }
    ),
    frozenset(
        {"transports", "handlers", "registry", "config", "http", "http_client", "http_limits", "messages", "state"}
    ),
    frozenset({"fair_queue"}),
    frozenset(
        {
            "construction",
            "node",
            "dialer",
            "bootstrap",
            "dispatch",
            "saving",
            "peer_table",
            "seen_view",
            "server",
            "counted",
            "status",
        }
    ),
    frozenset({"belonging", "pledging"}),
    frozenset({"running"}),
    frozenset({"client", ""}),
    frozenset({"cli", "cli_keys", "demo", "testing", "__main__"}),
)

# What the pure parts may import besides zmesh.core: values and arithmetic, no clock, no chance, no IO.
PURE = {
    *("__future__", "bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "heapq", "ipaddress"),
    *("itertools", "math", "msgpack", "operator", "re", "struct", "types", "typing"),
}
DYNAMIC = {"__import__", "import_module", "exec", "eval"}

MAX_LINES = 500
MAX_FUNCTION = 70
"""Files and functions stay under these."""


def sources(*folders: str) -> list[Path]:
    """The Python files below these folders; links into others are not followed."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if not {"transports", "handlers"} & set(path.relative_to(ROOT).parts[1:]))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    """The part of the dotted name below ``zmesh``; empty for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "zmesh" else parts
    return ".".join(part for part in parts if part != "__init__")


def layer(dotted: str) -> int:
    first = dotted.partition(".")[0]
    for number, members in enumerate(LAYERS):
        if first in members:
            return number
    raise AssertionError(f"zmesh.{first} belongs to no layer: say in LAYERS where it stands")


def imports(path: Path) -> Iterator[str]:
    """Every dotted name that an import statement names; of zmesh itself the module that ``from zmesh import`` takes."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "zmesh":
            yield from (f"zmesh.{alias.name}" if alias.name.islower() else "zmesh" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), name(path))


def test_imports_run_one_way() -> None:
    upward = [
        f"{name(path)} imports {imported}"
        for path in sources(*LIBRARY)
        for imported in imports(path)
        if imported.partition(".")[0] == "zmesh" and module(path)
        if layer(imported.partition(".")[2]) > layer(module(path))
    ]
    assert upward == []


def test_the_pure_parts_import_values_and_nothing_else() -> None:
    allowed = {"zmesh/core": ("zmesh.core",), "handlers": ("zmesh.core", "zmesh.handlers")}
    impure = [
        f"{name(path)} imports {imported}"
        for folder, pure in allowed.items()
        for path in sources(folder)
        for imported in imports(path)
        if not imported.startswith(pure) and imported.partition(".")[0] not in PURE
    ]
    assert impure == []


def test_the_linked_folders_are_imported_by_their_real_names() -> None:
    """Under their bare names they would load a second time, with types that equal nothing."""
    bare = [
        f"{name(path)} imports {imported}"
        for path in sources(*EVERYTHING)
        for imported in imports(path)
        if imported.partition(".")[0] in {"transports", "handlers"}
    ]
    assert bare == []


def test_nothing_is_imported_or_run_from_a_string() -> None:
    dynamic = []
    for path in sources(*LIBRARY):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                dynamic += [f"{name(path)}:{node.lineno} calls {called}"] * (called in DYNAMIC)
    # The package hands out its public names lazily, so that importing it stays fast.
    assert [call for call in dynamic if not call.startswith("zmesh/__init__.py:")] == []


def test_files_and_functions_keep_their_size() -> None:
    large = []
    for path in sources(*EVERYTHING):
        lines = path.read_text(encoding="utf-8").count("\n")
        large += [f"{name(path)} has {lines} lines"] * (lines >= MAX_LINES)
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = length(node)
                large += [f"{name(path)}: {node.name} has {lines} lines"] * (lines >= MAX_FUNCTION)
    assert large == []


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring not counted."""
    first = function.body[0]
    docstring = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) is not None else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_no_test_sleeps() -> None:
    """Giving the loop one turn is allowed; waiting for time to pass is a race that somebody loses."""
    assert matches(r"\bsleep" + r"\(\s*(?!0\s*\))[^)]*", "tests") == []


def test_nothing_is_left_for_later_in_a_comment() -> None:
    assert matches("|".join([r"\bTO" + r"DO\b", r"\bFIX" + r"ME\b", r"\bXX" + r"X\b"]), *EVERYTHING) == []


def matches(pattern: str, *folders: str) -> list[str]:
    """Where the text of a source file matches."""
    compiled = re.compile(pattern)
    return [
        f"{name(path)}: {found}"
        for path in sources(*folders)
        for found in compiled.findall(path.read_text(encoding="utf-8"))
    ]


def test_a_lock_holds_versions_and_hashes_and_no_addresses() -> None:
    for lock in (ROOT / "requirements").iterdir():
        lines = [line for line in lock.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        pinned = re.compile(r"[a-z0-9-]+==[^ ]+( ; [^:]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
        assert [line for line in lines if not pinned.fullmatch(line)] == []


def pins(lock: str) -> set[str]:
    """The releases in a lock, each with its hashes."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    return {pin for pin in re.split(r"\n(?=\S)", text.strip()) if not pin.startswith("#")}


def test_a_container_gets_what_zmesh_depends_on_in_the_versions_that_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split("[<>=]", one)[0] for one in project["dependencies"]}
    assert wanted - {pin.partition("==")[0] for pin in pins("run.txt")} == set()
    assert pins("run.txt") | pins("build.txt") <= pins("dev.txt")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel as a clone would build it, made from a copy so that nothing is left in the checkout."""
    copy = tmp_path_factory.mktemp("clone")
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, copy)
    for folder in EVERYTHING:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=ignored)
    build = "import setuptools.build_meta as backend; backend.build_wheel('out')"
    # Not compiled, whatever this run of the tests is: that wheel would be for this machine alone.
    plain = {name: value for name, value in os.environ.items() if name != "ZMESH_COMPILE"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", build], cwd=copy, env=plain, check=True, capture_output=True)
    (built,) = (copy / "out").iterdir()
    return zipfile.Path(built)


def test_the_wheel_holds_every_module_under_one_name(wheel: zipfile.Path) -> None:
    """A clone without links would build a wheel without transports, and say nothing."""
    held = {entry for entry in wheel.root.namelist() if not entry.endswith("/") and ".dist-info/" not in entry}
    expected = {name(path) for path in sources("zmesh")}
    expected |= {f"zmesh/{name(path)}" for path in sources("transports", "handlers")}
    assert held == expected | {"zmesh/py.typed"}
    assert "zmesh/transports/zeromq.py" in held
    assert "zmesh/handlers/heartbeat.py" in held


def test_the_wheel_says_what_it_is(wheel: zipfile.Path) -> None:
    (info,) = (entry for entry in wheel.iterdir() if entry.name.endswith(".dist-info"))
    metadata = (info / "METADATA").read_text(encoding="utf-8")
    assert "\nName: zmesh-net\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "zmesh = zmesh.__main__:main" in (info / "entry_points.txt").read_text(encoding="utf-8")
    assert "\nTag: py3-none-any\n" in (info / "WHEEL").read_text(encoding="utf-8")
