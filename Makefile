# Everything here sets itself up: all it needs is Python 3.11 or newer, and make.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready

# Files that start a Flik of their own and mostly wait for it, with bounds that a busy machine keeps too: the first
# ones beside the tests without servers, the others beside those of the Flik that all share.
PATIENT := $(patsubst %,tests/acceptance/test_%.py,start_stop fuzz)
APART := $(patsubst %,tests/acceptance/test_%.py,dag_graphs following regions uploads_away)

.PHONY: run test lint type fmt bench chaos fuzz lock help small patient shared apart chromium

run: $(RUN_READY) ## Start Flik, make a text, a picture and a film, and go on serving
	$(BIN)/flik up --demo

test: ## Run every check and every test (short forms of the slow suites)
	+$(MAKE) --no-print-directory --jobs 3 --output-sync=target chromium lint type
	$(BIN)/python -m compileall -q flik # else each process does it, where PYTHONDONTWRITEBYTECODE is set
	+$(MAKE) --no-print-directory --jobs 2 --output-sync=target small patient
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/integration
	+$(MAKE) --no-print-directory --jobs 2 --output-sync=target shared apart

lint: $(DEV_READY) ## Check style, security and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/bandit -q -c pyproject.toml -r flik

type: $(DEV_READY) ## Check types, strictly
	$(BIN)/mypy

fmt: $(DEV_READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV_READY) ## Measure speed, beside what the machine and a Celery stack can do
	$(BIN)/python -m benchmarks

chaos: $(DEV_READY) ## Kill everything, repeatedly, and try 10,000 sequences of events (the long form)
	FLIK_SEQUENCES=10000 $(BIN)/python -m pytest tests/unit/pipeline/test_sequences.py
	FLIK_CHAOS=long $(BIN)/python -m pytest -m chaos --timeout 1800

fuzz: $(DEV_READY) ## Send 200,000 requests made from the description (the long form; FLIK_FUZZ_SEED repeats it)
	$(BIN)/python -m tests.fuzz

lock: ## Renew the locked dependencies (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  pyproject.toml --group build --output-file requirements/run.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  pyproject.toml --group build --group dev --output-file requirements/dev.txt

small: # no server of its own, or one that is only asked what it holds
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/unit tests/conformance tests/architecture

shared: # one Flik, and some of their own that are killed
	$(BIN)/python -m pytest tests/acceptance $(PATIENT:%=--ignore=%) $(APART:%=--ignore=%)

apart: # beside `shared`, which has the cache of pytest
	$(BIN)/python -m pytest -q -p no:cacheprovider $(APART)

patient: # beside `small`, which has the cache of pytest
	$(BIN)/python -m pytest -q -p no:cacheprovider $(PATIENT)

chromium: # the browser tests drive a real one
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || { \
	  echo "make test drives a real Chromium: install it first (Debian: apt-get install chromium)"; exit 1; }

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-6s %s\n", $$1, $$2}'

$(VENV)/pyvenv.cfg:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Flik needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(RUN_READY): $(VENV)/pyvenv.cfg requirements/run.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/run.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(DEV_READY): $(VENV)/pyvenv.cfg requirements/dev.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@ $(RUN_READY)
