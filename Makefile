# make test   everything that must hold: format, lint, types, tests        make env    the environment alone
# make demo   ten validators train a model together                        make bench  the benchmarks
# make demo-chain   the same on a real chain, where nobody lists anybody (needs node and npm)
# make compiled   the core as an extension, in build/compiled, and the tests that concern it
# make bench-compiled   the benchmarks on that (a minute and a half to compile it first)
# make image  a node as a container image, named zmesh (needs docker)
# make lock   pin the dependencies anew                                    make clean  remove what was made

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
READY  := $(VENV)/.ready
PIP    := $(PY) -m pip install -q --disable-pip-version-check
# Workers for the tests: one per core of the smallest machine the checks run on.
JOBS   ?= 2

.DEFAULT_GOAL := test
.PHONY: env test format lint types check extension compiled demo demo-chain bench bench-compiled coverage image lock clean

env: $(READY)

# uv installs the lock in seconds; where it cannot be had, pip takes the same lock and the same hashes.
$(READY): requirements/dev.txt requirements/uv.txt pyproject.toml setup.cfg
	@echo "== environment in $(VENV)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@if $(PIP) --require-hashes -r requirements/uv.txt && \
	    $(BIN)/uv pip install -q --python $(PY) --require-hashes -r requirements/dev.txt; then :; \
	else \
	    echo "== uv cannot be had here: pip takes the same lock"; \
	    $(PIP) --require-hashes -r requirements/dev.txt; \
	fi
	@$(PIP) --no-build-isolation --no-deps -e .
	@touch $@

test: format lint types check

format: env
	@echo "== format"
	@$(BIN)/ruff format --check .

lint: env
	@echo "== lint"
	@$(BIN)/ruff check .

types: env
	@echo "== types"
	@$(BIN)/mypy

check: env
	@echo "== tests"
	@$(PY) -m pytest -n $(JOBS) --dist worksteal

# Where real sockets and processes meet the engine; the rest of tests/integration is about what is not compiled.
COMPILED := client_messages.py client_processes.py demo.py zeromq_lanes.py

# A copy, so that what is compiled never shadows what is being written. It says so at once: runs of the wrong core prove nothing.
extension: env
	@echo "== compiling the core"
	@rm -rf build/compiled && mkdir -p build/compiled
	@git ls-files -zco --exclude-standard | xargs -0 cp -P --parents -t build/compiled
	@cd build/compiled && ZMESH_COMPILE=1 $(abspath $(PY)) setup.py -q build_ext --inplace
	@cd build/compiled && $(abspath $(PY)) -m zmesh version | grep "core compiled"

compiled: extension
	@echo "== tests of the compiled core"
	@cd build/compiled && $(abspath $(PY)) -m pytest -n $(JOBS) --dist worksteal \
	    tests/unit tests/property tests/contract tests/simulation tests/vectors $(addprefix tests/integration/test_,$(COMPILED))

demo: env
	@$(BIN)/zmesh demo

demo-chain: env
	@$(BIN)/zmesh demo --chain

bench: env
	@$(PY) -m benchmarks

bench-compiled: extension
	@cd build/compiled && $(abspath $(PY)) -m benchmarks

coverage: env
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report --skip-covered

image:
	@docker build -t zmesh .

# The locks carry names, versions and hashes, and no address they came from. dev.txt has everything; of that, run.txt has
# what a node needs, and build.txt what makes a wheel.
COMPILE := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
           --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"

lock:
	@test -x $(BIN)/uv || $(MAKE) env
	@$(COMPILE) --upgrade --all-extras --group dev pyproject.toml -o requirements/dev.txt
	@echo "uv" | $(COMPILE) --upgrade - -o requirements/uv.txt
	@$(COMPILE) -c requirements/dev.txt pyproject.toml -o requirements/run.txt
	@printf 'mypy\nsetuptools\n' | $(COMPILE) -c requirements/dev.txt - -o requirements/build.txt

clean:
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
