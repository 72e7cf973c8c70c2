# Everything below works from a fresh clone with Python 3.11+ and make.
# `make demo` and `make test` are the two to start with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SAM_VENV := .sam-venv
SAM := $(SAM_VENV)/bin/sam
LOCAL_READY := $(VENV)/.local-ready
DEV_READY := $(VENV)/.dev-ready
SOURCES := layers functions local tests
AUDIT_ARGUMENTS ?=
LOCK_ARGUMENTS ?=

# The SAM CLI reports its use to AWS unless it is told not to.
export SAM_CLI_TELEMETRY := 0

.PHONY: demo audit test check lint format build validate lock clean

demo: $(LOCAL_READY)  ## the main job, twice, against an embedded DTR and an embedded AWS
	$(BIN)/python -m local demo

audit: $(LOCAL_READY)  ## the same against a DTR of yours: make audit AUDIT_ARGUMENTS="--url https://… --username …"
	$(BIN)/python -m local audit $(AUDIT_ARGUMENTS)

test: $(DEV_READY)  ## every test that can run on this machine
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

check: $(DEV_READY) $(SAM)  ## the gate: exactly what CI runs
	$(MAKE) lint
	$(MAKE) validate
	$(MAKE) build
	$(MAKE) test

lint: $(DEV_READY)  ## format, style, types, template
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/cfn-lint

format: $(DEV_READY)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

validate: $(SAM)
	$(SAM) validate --lint

build: $(SAM)  ## the deployable artifact, in .aws-sam/
	MAKEFLAGS= PYTHON='$(abspath $(SAM_VENV))/bin/python' $(SAM) build

lock:  ## the lock files from the .in files; LOCK_ARGUMENTS=--upgrade takes newer versions
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	set -e; for list in layers/audit/requirements requirements/local requirements/dev requirements/sam; do \
		build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
			--no-annotate $(LOCK_ARGUMENTS) --output-file $$list.txt $$list.in; \
	done

# Development environments. The stamp files make a changed lock file rebuild them; the lists are whole, so that pip
# resolves nothing (it could not: a list with hashes has no extras).
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(LOCAL_READY): requirements/local.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/local.txt
	touch $@

$(DEV_READY): requirements/dev.txt $(LOCAL_READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	touch $@

$(SAM): requirements/sam.txt
	$(PYTHON) -m venv $(SAM_VENV)
	$(SAM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/sam.txt
	touch $@

clean:  ## what can be made again; not out/, which holds the state of your audits
	rm -rf out/demo build .aws-sam $(VENV) $(SAM_VENV)
