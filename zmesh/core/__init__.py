"""The protocol, pure: events in, actions out.

Rules
 1. No IO, no clock, no randomness of its own, no logging: time and chance are arguments.
 2. ``engine.Engine.handle`` is the only way in. ``intake.py`` has the order of all checks: read its docstring first.
"""


def build() -> str:
    """Which core is running: "compiled" (the extension that mypyc built) or "interpreted" (the Python files)."""
    from zmesh.core import engine

    return "compiled" if engine.__file__.endswith((".so", ".pyd")) else "interpreted"
