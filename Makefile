# The two commands of the README are `make demo` and `make test`; nothing but Python 3.11 or newer,
# with its venv module, needs to be there. Everything is installed into .venv, and only again when
# pyproject.toml changes, so that both also work without a network from then on.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test lint docs clean

VENV := .venv
BIN := $(VENV)/bin
# The checksum stands in the name of the stamp: a checkout that only touches the file costs nothing.
SUM := $(shell cksum < pyproject.toml | cut -d ' ' -f 1)
RUNS := $(VENV)/.runs-$(SUM)
TESTS := $(VENV)/.tests-$(SUM)
# One thread a process: the work runs in processes of its own, and two cores are soon crowded.
THREADS := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

# Where Python may not keep its byte code, each of a thousand starts compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo "make demo   simulate a night and reduce it; products and pictures go into demo/"
	@echo "make test   style, types, tests and documentation"
	@echo "make lint   style and types only"
	@echo "make docs   documentation, into docs/_build/html (after make demo: with its pictures)"
	@echo "make clean  remove everything that these made"

demo: $(RUNS)
	$(BIN)/kspec demo -o demo

# Types and documentation need one core each: side by side. The tests then have both.
test: $(TESTS)
	$(MAKE) --no-print-directory docs & docs=$$!; \
	$(MAKE) --no-print-directory lint; \
	wait $$docs
	$(THREADS) $(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: $(TESTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(TESTS)
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "documentation: docs/_build/html/index.html"

clean:
	rm -rf $(VENV) demo docs/_build docs/recipes build *.egg-info

$(BIN)/python:
	@for name in $${PYTHON:-} python3.13 python3.12 python3.11 python3; do \
	    if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	        2> /dev/null; then found=$$name; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	    echo "make: no Python 3.11 or newer with the modules venv and ensurepip was found;" >&2; \
	    echo "install one (Debian: apt install python3 python3-venv) or set PYTHON=/path" >&2; \
	    exit 1; \
	fi; \
	echo "$$("$$found" --version) into $(VENV)"; \
	"$$found" -m venv --clear $(VENV)

$(RUNS): | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(TESTS): | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs]'
	@touch $@ $(RUNS)
