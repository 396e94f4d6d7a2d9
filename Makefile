# The same commands locally and in CI. Only `make`, Python 3.11 or newer and a package index
# are needed for `demo`, `test` and `check`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check format e2e bench clean

help: ## Show what can be made
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=python3.12, for example.")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,e2e]'
	touch $@

demo: $(STAMP) ## One job admitted, one refused and why, on this machine alone
	$(BIN)/federation demo

test: $(STAMP) ## The tests that need Python alone
	$(BIN)/python -m pytest -m 'not e2e'

check: $(STAMP) ## Format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP) ## Format the code and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

e2e: $(STAMP) ## The slower suite: real servers, real clients, many generated cases
	$(BIN)/python -m pytest -m e2e

bench: $(STAMP) ## Exchange against the physical limit, in one run
	$(BIN)/python -m bench

clean: ## Remove what the other targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
