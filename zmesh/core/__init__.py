"""The protocol, pure: events in, actions out.

Rules
 1. No IO, no clock, no randomness of its own, no logging: time and chance are arguments.
 2. ``engine.Engine.handle`` is the only door; ``intake.py`` has the order of all checks: read its docstring first.
"""


def build() -> str:
    """What runs: "compiled" for the extension that mypyc made of the core, "interpreted" for its Python files."""
    from zmesh.core import engine

    return "compiled" if engine.__file__.endswith((".so", ".pyd")) else "interpreted"
