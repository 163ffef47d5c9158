"""Writes ``docs/api.md``, the reference of the public API, from signatures and docstrings.

python docs/api.py
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

PAGE = Path(__file__).with_name("api.md")
TOP = """# API

The public API consists of the names on this page; each section says which module to import them from. Everything else,
other modules and names with a leading underscore included, may change without notice. Until version 1.0 public names
may change too, and [CHANGELOG.md](../CHANGELOG.md) will say so. [settings.md](settings.md) lists the settings.

A client belongs to the event loop on which it was started. This page is made from docstrings by `python docs/api.py`.
"""

WIDTH = 120
"""Characters of a signature that stays on one line."""


class Section(NamedTuple):
    """One module, and the names of it to show."""

    title: str
    module: str
    names: tuple[str, ...]
    intro: str = ""
    about: str = ""
    """The module whose docstring introduces the section."""


SECTIONS = (
    Section("Client", "zmesh", ("MeshNetworkClient", "MessageHandler", "Settings", "Identity")),
    Section("Peers", "zmesh", ("PeerInfo",)),
    Section("Peers", "zmesh.peer_table", ("PeerTable",), "The type of `mesh.peers`; not meant to be constructed."),
    Section("Messages", "zmesh", ("MeshMessage", "MessageType", "SendResult", "FLRoundAnnouncement")),
    Section(
        "Errors",
        "zmesh",
        (
            *("ZmeshError", "ConfigError", "NotRunningError"),
            *("PayloadError", "PayloadTooLargeError", "SelfHarmError"),
        ),
    ),
    Section(
        "Rounds, votes and records",
        "zmesh.handlers",
        (
            *("Handlers", "Rounds", "Round", "RoundState", "Delta"),
            *("Votes", "Tally", "Proposal", "Equivocation", "Signed", "Records", "Record"),
        ),
        "`mesh.handlers` has one of each while the client runs. They are read, never called to send: use the client.",
    ),
    Section(
        "A registry of your own",
        "zmesh.registry",
        (
            *("Registry", "OnChange", "ValidatorSet", "Roster", "EMPTY_ROSTER", "Member", "Account", "Endpoint"),
            *("RegistryStatus", "PeerKey"),
        ),
        "Pass an object with the methods of `Registry` as `MeshNetworkClient(registry=...)`.",
        "zmesh.registry.port",
    ),
    Section("Testing a service", "zmesh.testing", ("mesh", "Nodes", "Validators"), about="zmesh.testing"),
    Section(
        "Simulation",
        "zmesh.transports.simulator",
        (
            *("Simulation", "SimulationSettings", "Callback", "Delivery", "Report", "Publication", "Offence", "Life"),
            *("uniform", "regions", "line", "quiet_handlers", "all_handlers"),
        ),
        about="zmesh.transports.simulator",
    ),
    Section(
        "Faults of a simulation",
        "zmesh.transports.faults",
        (
            *("Fault", "Loss", "Delay", "Duplicate", "Reorder", "Corrupt", "Partition", "Silent", "Byzantine"),
            *("Replay", "Crash", "Skew", "Trouble"),
            *("Rewrite", "zero_ttl", "inflate_ttl", "forge_signature", "impersonate"),
        ),
        about="zmesh.transports.faults",
    ),
)

MEMBERS = {
    "Rounds": ("round", "named"),
    "Votes": ("tally", "equivocations", "proposals", "open"),
    "Records": ("records", "proofs", "own"),
    "PeerTable": ("__getitem__", "__setitem__", "__delitem__", "items", "values"),
    "PeerInfo": ("is_alive",),
    "MeshMessage": ("to_dict", "from_dict"),
    "Handlers": (),
    "Round": (),
    "Record": ("multiaddrs",),
    "Settings": (),
    "SendResult": (),
    "Life": (),
    "Nodes": (),
    "Publication": (),
    "Proposal": (),
}
"""Of classes that also have methods for zmesh's own use: those to show. Of others, all that are public."""
PLAIN = {"Rounds", "Votes", "Records", "Settings"}
"""Classes whose arguments and attributes are for zmesh's own use, or stand elsewhere."""
UNSIGNED = {"PeerTable", "Registry", "Rounds", "Votes", "Records", "Record", "Settings", "Life", "Publication", "Nodes"}
"""Classes that zmesh makes, or whose arguments stand elsewhere: their constructors are left out."""


def page() -> str:
    """The whole reference, as Markdown."""
    lines = [TOP.rstrip()]
    title = ""
    for section in SECTIONS:
        if section.title != title:
            title = section.title
            lines.append(f"## {title}")
        lines.append(f"Module: `{section.module}`")
        lines += [section.intro] * bool(section.intro)
        lines += _text(import_module(section.about).__doc__) if section.about else ()
        module = import_module(section.module)
        for name in section.names:
            lines += [f"### `{name}`", *_described(name, getattr(module, name), section.module)]
    return "\n\n".join(lines) + "\n"


def _described(name: str, value: Any, module: str) -> Iterator[str]:
    if inspect.isclass(value) and value.__name__ == name:
        yield from _of_class(name, value)
    elif inspect.isfunction(value):
        yield _signature(name, value)
        yield from _text(inspect.getdoc(value))
    else:
        statement, meaning = _assigned(name, module)
        yield f"```python\n{statement}\n```"
        yield from _text(meaning)


# ---------------------------------------------------------------- classes


def _of_class(name: str, value: type) -> Iterator[str]:
    bases = [base.__name__ for base in value.__bases__ if base is not object]
    if issubclass(value, Exception):
        yield f"Bases: {', '.join(f'`{base}`' for base in bases)}"
    yield from (part for part in _text(value.__doc__) if name not in PLAIN or not part.startswith("- "))
    made = vars(value).get("__init__")
    fields = [] if name in PLAIN else list(_fields(value))
    if made is not None and name not in UNSIGNED and not is_dataclass(value) and made.__doc__ is None:
        yield _signature(name, made)
    if fields:
        yield "\n".join(fields)
    for member, what in vars(value).items():
        if member in MEMBERS.get(name, ()) or (name not in MEMBERS and not member.startswith("_")):
            yield from _member(member, what)


def _member(name: str, what: Any) -> Iterator[str]:
    if isinstance(what, property):
        assert what.fget is not None
        returns = what.fget.__annotations__["return"]
        yield f"#### `{name}`"
        yield f"```python\n{name}: {returns}\n```"
        yield from _text(inspect.getdoc(what))
    elif isinstance(what, classmethod | staticmethod) or (inspect.isfunction(what) and not _is_elsewhere(what)):
        function = what.__func__ if isinstance(what, classmethod | staticmethod) else what
        yield f"#### `{name}`"
        yield _signature(name, function, kind="@classmethod\n" if isinstance(what, classmethod) else "")
        yield from _text(inspect.getdoc(function))


def _is_elsewhere(function: Any) -> bool:
    """Whether its docstring is only a reference to the one that it overrides."""
    return re.fullmatch(r"See ``\w+``\.", function.__doc__ or "") is not None


def _fields(value: type) -> Iterator[str]:
    """The fields of a dataclass, tuple or enum and the documented attributes of an object, one item of a list each."""
    (tree,) = ast.parse(dedent(inspect.getsource(value))).body
    assert isinstance(tree, ast.ClassDef)
    made = next((one.body for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), [])
    for body in (tree.body, made):
        for statement, following in zip(body, [*body[1:], None], strict=bool(body)):
            meaning = _literal(following)
            shown = _field(statement, value) if body is tree.body or meaning else ""
            if shown and not shown.startswith("_") and "ClassVar" not in shown:
                yield f"- `{_code(shown)}`" + (f": {_inline(meaning)}" if meaning else "")


def _field(statement: ast.stmt, owner: type) -> str:
    """Name, type and default; empty for anything but a field."""
    if isinstance(statement, ast.AnnAssign):
        name, kind = ast.unparse(statement.target), f": {ast.unparse(statement.annotation)}"
        default = "" if statement.value is None else _default(ast.unparse(statement.value), owner)
    elif isinstance(statement, ast.Assign):
        name, kind, default = ast.unparse(statement.targets[0]), "", f" = {ast.unparse(statement.value)}"
    else:
        return ""
    if name.startswith("self."):
        return f"{name.removeprefix('self.')}{kind}"
    return f"{name}{kind}{default}" if kind or issubclass(owner, Enum) else ""


def _default(source: str, owner: type) -> str:
    """How a field's default is shown: not at all if it is made for each object."""
    if (given := re.fullmatch(r"field\(default=([\w.]+).*\)", source)) is not None:
        source = given[1]
    constant = vars(import_module(owner.__module__)).get(source)
    if isinstance(constant, int | float):
        source = repr(constant)
    return "" if source.startswith("field(") else f" = {source}"


def _code(source: str) -> str:
    """Quotes as the project writes them, and no names that a module has for another."""
    return re.sub(r"\b(?:wrongs|ev|act)\.", "", source.replace("'", '"'))


def _literal(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return str(statement.value.value)
    return ""


def _assigned(name: str, module: str) -> tuple[str, str]:
    """The statement that gives a name its value, and the docstring below it, wherever the module has it from."""
    for origin in (module, "zmesh.dispatch", "zmesh.registry.port", "zmesh.core.types"):
        body = ast.parse(inspect.getsource(import_module(origin))).body
        for statement, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
                return _code(ast.unparse(statement)), _literal(following)
    raise LookupError(name)


# ---------------------------------------------------------------- signatures


def _signature(name: str, function: Any, kind: str = "") -> str:
    """A fenced definition, on one line if it fits."""
    signature = inspect.signature(function)
    parts: list[str] = []
    is_keyword = False
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword:
            is_keyword = True
            parts.append("*")
        stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
        is_keyword = is_keyword or parameter.kind is parameter.VAR_POSITIONAL
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        parts.append(f"{stars}{parameter.name}: {parameter.annotation}{default}")
    returns = "" if name[0].isupper() else f" -> {signature.return_annotation}"
    if name[0].isupper():
        start = f"class {name}"
    else:
        is_async = inspect.iscoroutinefunction(function)
        start = f"{'async ' if is_async else ''}def {name}"
        if "AsyncIterator" in returns and hasattr(function, "__wrapped__"):
            start = f"@asynccontextmanager\nasync def {name}"
    line = f"{start}({', '.join(parts)}){returns}"
    if len(line) > WIDTH:
        line = f"{start}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"
    return f"```python\n{kind}{_code(line)}\n```"


# ---------------------------------------------------------------- docstrings


def _text(docstring: str | None) -> Iterator[str]:
    """The paragraphs of a docstring as Markdown: ``Args:`` becomes a list, an example a block of code."""
    for paragraph in inspect.cleandoc(docstring or "").split("\n\n"):
        first, *rest = paragraph.split("\n")
        if first.startswith(">>>"):
            yield f"```pycon\n{paragraph}\n```"
        elif first == "Args:":
            items = re.split(r"\n(?=    \w)", "\n" + "\n".join(rest))[1:]
            yield "\n".join(_argument(" ".join(item.split())) for item in items)
        elif (items := re.split(r"\n(?= \d+\. )", "\n" + "\n".join(rest))[1:]) and first:
            yield _inline(first)
            yield "\n".join(_inline(item) for item in items)
        elif first:
            yield _inline(paragraph)


def _argument(item: str) -> str:
    name, _, meaning = item.partition(": ")
    return f"- `{name}`: {_inline(meaning)}"


def _inline(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
