# Everything below works from a fresh clone with Python 3.11+ and make.
# `make demo` and `make test` are the two to start with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SAM_VENV := .sam-venv
SAM := $(SAM_VENV)/bin/sam
LOCAL_READY := $(VENV)/.local-ready
QUERY_READY := $(VENV)/.query-ready
DEV_READY := $(VENV)/.dev-ready
RUNTIME := build/lambda-runtime
RUNTIME_READY := $(RUNTIME)/.ready
SBOM_VENV := build/sbom-tool
SBOM_READY := $(SBOM_VENV)/.ready
CHECKOV_READY := build/checkov/.ready
PIP_AUDIT_READY := build/pip-audit/.ready
READERS_READY := build/readers/.ready
UV := build/uv/bin/uv
SOURCES := layers functions cli simulator tests tools
AUDIT_ARGUMENTS ?=
COST_ARGUMENTS ?=
FUZZ_ARGUMENTS ?=
SCALE_ARGUMENTS ?=
Q ?=
QUERY_ARGUMENTS ?=
DEPLOY_ARGUMENTS ?=
LOCK_ARGUMENTS ?=
UNANSWERED ?= fail

# The SAM CLI reports its use to AWS unless it is told not to.
export SAM_CLI_TELEMETRY := 0

.PHONY: demo audit cost scale query queries parameters dist test test-fast fuzz check lint format build deploy bench sbom scan advisories readers lock clean

demo: $(LOCAL_READY)  ## the main job, three times, against a simulated registry and a simulated AWS
	$(BIN)/dtr-audit demo

audit: $(LOCAL_READY)  ## the same against a DTR of yours: make audit AUDIT_ARGUMENTS="--url https://… --username …"
	$(BIN)/dtr-audit audit $(AUDIT_ARGUMENTS)

cost: $(LOCAL_READY)  ## what a month costs: make cost COST_ARGUMENTS="--tags 5000 --repositories 200"
	$(BIN)/python -m tools.planner cost $(COST_ARGUMENTS)

scale: $(LOCAL_READY)  ## how far each engine carries: make scale SCALE_ARGUMENTS="--tags 5000000 --repositories 90000"
	$(BIN)/python -m tools.planner scale $(SCALE_ARGUMENTS)

query: $(QUERY_READY)  ## ask what audits have left in out/: make query Q=open-findings; without Q: what can be asked
	$(BIN)/dtr-audit query $(Q) $(QUERY_ARGUMENTS)

parameters: $(LOCAL_READY)  ## the tables of docs/parameters.md from template.yaml
	$(BIN)/python -m tools.parameters

queries: $(LOCAL_READY)  ## queries/*.sql into template.yaml, which cannot include a file
	$(BIN)/python -m dtr_audit_cli.query_files

test: $(DEV_READY) $(RUNTIME_READY)  ## every test that can run on this machine
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-fast: $(DEV_READY)  ## what a developer runs after each change: no server, no browser, no whole audit in steps
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal tests/unit tests/template tests/evidence/test_checklist.py \
		tests/evidence/test_formats.py tests/integration/test_contracts.py tests/integration/test_audit.py \
		--deselect tests/template/test_template_lint.py --deselect tests/template/test_docs.py --deselect tests/unit/test_scale.py

fuzz: $(DEV_READY)  ## 200 000 mutants of what others answer; one again: make fuzz FUZZ_ARGUMENTS="--target tags --seed 7 --cases 1"
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGUMENTS)

check: $(DEV_READY) $(SAM)  ## the gate: exactly what CI runs
	$(MAKE) lint
	$(MAKE) build
	$(MAKE) sbom
	$(MAKE) scan
	$(MAKE) advisories UNANSWERED=warn
	$(MAKE) test

lint: $(DEV_READY)  ## format, style, types, template
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/cfn-lint

format: $(DEV_READY)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

build: $(SAM)  ## the deployable artifact, in .aws-sam/
	MAKEFLAGS= PYTHON='$(abspath $(SAM_VENV))/bin/python' $(SAM) build

# Parameters that are not named keep the values that the stack has; a new stack takes the template's defaults.
deploy: build  ## build and deploy; at first DEPLOY_ARGUMENTS="--parameter-overrides DtrUrl=https://… RegistryName=…"
	$(SAM) deploy $(DEPLOY_ARGUMENTS)

bench: $(DEV_READY) $(SAM) $(RUNTIME_READY)  ## how fast, how large and how dear an audit is, beside its goals, in build/bench/
	$(MAKE) build
	$(BIN)/python -m tools.bench

sbom: $(SBOM_READY)  ## what the layer is made of (CycloneDX), of the build in .aws-sam/, as build/sbom.cdx.json
	test -d .aws-sam/build/AuditLayer/python || $(MAKE) build
	echo '$(abspath .aws-sam/build/AuditLayer/python)' > "$$(echo $(SBOM_VENV)/layer/lib/python3*/site-packages)/layer.pth"
	sed "s/^dynamic = .*/version = $$(sed -n 's/^__version__ = //p' layers/audit/dtr_audit/__init__.py)/" pyproject.toml \
		> $(SBOM_VENV)/pyproject.toml
	$(SBOM_VENV)/bin/cyclonedx-py environment --output-reproducible --spec-version 1.6 --of JSON \
		--pyproject $(SBOM_VENV)/pyproject.toml --mc-type application --output-file build/sbom.cdx.json $(SBOM_VENV)/layer

scan: $(LOCAL_READY) $(CHECKOV_READY)  ## misconfigurations in the template, and suppressions that nothing needs any more
	$(BIN)/python -m tests.scans.misconfigurations build/checkov/bin/checkov

advisories: $(PIP_AUDIT_READY)  ## known vulnerabilities in every lock file; UNANSWERED=warn where the service may be out of reach
	build/pip-audit/bin/python -m tests.scans.advisories --unanswered $(UNANSWERED) layers/audit/requirements.txt \
		$(sort $(wildcard requirements/*.txt))

readers: $(READERS_READY)  ## other people's readers of the evidence (Node, from PyPI and npm), for the tests that feed them
	@echo "build/readers: $$(ls build/readers/node_modules | wc -l) packages"

dist: $(LOCAL_READY)  ## what a release consists of, in dist/: wheel, built stack, SBOM, checksums
	rm -rf dist
	$(MAKE) build
	$(MAKE) sbom
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	cd .aws-sam/build && $(abspath $(BIN))/python -m zipfile -c \
		$(abspath dist)/dtr-signature-audit-$$($(abspath $(BIN))/python -c 'import dtr_audit; print(dtr_audit.__version__)').zip *
	cp build/sbom.cdx.json dist/
	cd dist && sha256sum * > SHA256SUMS

# moto asks for cfn-lint, and so for sympy and networkx, which a demonstration needs nothing of: 150 MB.
lock: $(UV)  ## the lock files from the .in files; LOCK_ARGUMENTS=--upgrade takes newer versions
	set -e; for list in layers/audit/requirements requirements/local requirements/query requirements/dev requirements/sam \
		requirements/lambda-runtime requirements/sbom requirements/checkov requirements/pip-audit requirements/readers; do \
		$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
			--no-annotate $(LOCK_ARGUMENTS) --output-file $$list.txt \
			$$([ $$list != requirements/local ] || printf -- '--no-emit-package %s ' cfn-lint mpmath networkx sympy) $$list.in; \
	done

# Development environments. The stamp files make a changed lock file rebuild them; the lists are whole, so that pip
# resolves nothing (it could not: a list with hashes has no extras).
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# The package itself is installed from where it lies, so that an edit needs no second installation. Its builder is in the list.
$(LOCAL_READY): requirements/local.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps -r requirements/local.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-index --no-build-isolation --editable .
	touch $@

$(QUERY_READY): requirements/query.txt $(LOCAL_READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps -r requirements/query.txt
	touch $@

$(DEV_READY): requirements/dev.txt $(LOCAL_READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps -r requirements/dev.txt
	touch $@

$(SAM): requirements/sam.txt
	$(PYTHON) -m venv $(SAM_VENV)
	$(SAM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/sam.txt
	touch $@

# For Lambda's Python, whatever this machine's own is. Compiled, as it is in Lambda.
$(RUNTIME_READY): requirements/lambda-runtime.txt | $(VENV)/bin/python
	rm -rf $(RUNTIME)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps \
		--implementation cp --python-version 3.13 --only-binary=:all: --platform manylinux_2_28_x86_64 \
		--platform manylinux2014_x86_64 --target $(RUNTIME) -r requirements/lambda-runtime.txt
	layers/audit/precompile '$(abspath $(RUNTIME))' /var/lang/lib/python3.13/site-packages
	touch $@

# The tool, and an environment that holds nothing but what it is to describe.
$(SBOM_READY): requirements/sbom.txt
	$(PYTHON) -m venv $(SBOM_VENV)
	$(SBOM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/sbom.txt
	$(PYTHON) -m venv --without-pip $(SBOM_VENV)/layer
	touch $@

$(UV):
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip install --quiet --disable-pip-version-check uv

# Compiling all of checkov takes longer than compiling what is used of it, when it is used.
$(CHECKOV_READY) $(PIP_AUDIT_READY): build/%/.ready: requirements/%.txt
	$(PYTHON) -m venv build/$*
	build/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps -r $<
	touch $@

# What npm installs runs no scripts; its lock file has the sums.
$(READERS_READY): requirements/readers.txt tests/evidence/package.json tests/evidence/package-lock.json
	$(PYTHON) -m venv --clear build/readers
	build/readers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/readers.txt
	cp tests/evidence/package.json tests/evidence/package-lock.json build/readers/
	cd build/readers && PATH="$$PWD/bin:$$PATH" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

clean:  ## what can be made again; not out/, which holds the state of your audits
	rm -rf out/demo build .aws-sam $(VENV) $(SAM_VENV)
