"""The protocol, pure: events in, actions out.

Rules
 1. No IO, no clock, no randomness of its own, no logging: time and chance are arguments.
 2. ``engine.Engine.handle`` is the only door; ``intake.py`` has the order of all checks: read its docstring first.
"""


def is_compiled() -> bool:
    """Whether the core runs as an extension made by mypyc, and not as the Python files it is made of."""
    from zmesh.core import engine

    return engine.__file__.endswith((".so", ".pyd"))
