# make solve                       set up once, then solve problems/poisson_control.yaml
# make solve PROBLEM=my.yaml       another problem file
# make test                        set up with the developers' tools, then lint, types and tests
# make test-slow                   the tests that take long: every shipped problem at its size, ...
# make schema                      write the schema, the reference and the page of the Python API again
# make ... PYTHON=python3.12       another interpreter (3.11 to 3.13) for the virtual environment
#
# Everything is installed into .venv, in the versions of constraints.txt.

PYTHON ?= python3
PROBLEM ?= problems/poisson_control.yaml

VENV := .venv
BIN := $(VENV)/bin

# Build environments read the second variable from pip 25.3 on, the first before that.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help solve test test-quick test-slow lint types schema setup setup-dev clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make\)/\1/p' Makefile

solve: $(VENV)/.ready
	$(BIN)/nhgd-pde solve "$(PROBLEM)"

# A process a core, with one thread each. Tests start many processes: where the environment forbids to keep compiled
# modules, each of them would compile the package again.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

# mypy has one process, which takes the time that the tests leave.
test: lint
	$(MAKE) --jobs 2 types test-quick

test-quick: $(VENV)/.ready-dev
	$(PYTEST) --dist loadfile -m "not slow"

# Few tests of a file may take minutes: a process that has nothing left to do takes some from another one.
test-slow: $(VENV)/.ready-dev
	$(PYTEST) --dist worksteal -m slow

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready-dev
	$(BIN)/mypy

# What is made from the vocabulary of problem files and from docstrings; tests compare it.
schema: $(VENV)/.ready
	$(BIN)/nhgd-pde schema > problems/schema.json
	cp problems/schema.json nhgd_pde/problem_file/schema.json
	$(BIN)/nhgd-pde schema --markdown > docs/reference.md
	$(BIN)/python -m benchmarks.api_page > docs/api.md

setup: $(VENV)/.ready

setup-dev: $(VENV)/.ready-dev

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "nhgd-pde needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another interpreter, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# pip compiles the modules of the packages one after the other; this uses all cores, and leaves out the tests of the
# packages. Modules that cannot be compiled, such as templates, are no error for pip, either.
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '[\\/]tests?[\\/]' $(VENV)/lib || true

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/.python
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	@$(COMPILE)
	@touch $@

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(VENV)/.python
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	@$(COMPILE)
	@touch $@ $(VENV)/.ready

clean:
	rm -rf $(VENV) build nhgd_pde.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
