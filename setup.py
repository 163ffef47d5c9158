"""Builds the package; with ``ZMESH_COMPILE=1``, mypyc compiles its core and its framing into an extension.

    pip install "setuptools>=77" mypy && ZMESH_COMPILE=1 pip install --no-build-isolation .

Rules
 1. The files are the program: nothing is written for the compiler, and without it everything works, only slower.
 2. Only code that runs for every message and touches neither the event loop nor a socket is compiled. Errors and the
    vocabulary stay interpreted: exceptions, enumerations and tuples gain nothing, and an embedder may copy or pickle
    them.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

OPTIONS = ["--config-file=", "--explicit-package-bases", "--follow-imports=silent", "--ignore-missing-imports"]
"""Anything else that mypy could report is for developers of the program, not for those who install it."""
INTERPRETED = {"__init__.py", "errors.py", "types.py"}
FRAMING = "zmesh/transports/packing.py"


def compiled() -> list[Extension]:
    """The core and the framing, translated to C. Needs mypy and a C compiler."""
    from mypyc.build import mypycify

    files = sorted(str(path) for path in Path("zmesh/core").glob("*.py") if path.name not in INTERPRETED)
    made: list[Extension] = mypycify([*OPTIONS, *files, FRAMING], opt_level="3")
    return made


setup(ext_modules=compiled() if os.environ.get("ZMESH_COMPILE") == "1" else [])
