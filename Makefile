# `make` lists the targets. They need python3 (3.11 or newer), make, and access to the package registries.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help install install-dev autosubmit run demo docs test deploy-test test-slurm test-versions test-browser screenshots lint format schema examples cli-commands cli-docs zipapp openapi-lint sdk lock migrations readme reference compat bench bench-servers soak ci clean

PYTHON ?= python3
export PYTHON
BIN := .venv/bin
# For management commands that need no data: a key of no value, and a database in memory.
CHECK_ENV := SECRET_KEY=only-for-checks-signs-nothing-of-value DATABASE_URL=sqlite:///:memory:
# What to test: make test TESTS="tests/machines/test_runners.py -k conda"
TESTS ?= tests
# In how many processes: make test PYTEST_WORKERS=2; 0 is one after the other, in one process. Empty: tools/run-tests decides.
PYTEST_WORKERS ?=
export PYTEST_WORKERS

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## Install the service into .venv
	@tools/make-venv .venv .installed -e .[server]

install-dev: ## Install the tools of developers, too
	@tools/make-venv .venv .installed-dev -r requirements-dev.txt -e .[server]

autosubmit: ## Install the real Autosubmit into a virtual environment of its own, .tools/autosubmit
	@tools/autosubmit-venv

demo: install autosubmit ## Set up everything and do the main job through the API, visibly; runs again without harm
	@$(BIN)/python tools/demo.py demo

run: install autosubmit ## Start a server with the demo's data and an admin login; Ctrl-C ends it
	@$(BIN)/python tools/demo.py run

test: install-dev autosubmit ## Install what the tests need (Debian packages as root or with sudo) and run them
	@tools/install-test-tools
	@tools/conda
	@tools/environment-modules
	@tools/autosubmit-venv 4.0.105 || [ $$? = 3 ]  # needs Python 3.9
	@tools/sdk/install
	@tools/run-tests $(TESTS)

deploy-test: install-dev ## Install the wheel with PostgreSQL, nginx and TLS as deploy/ does, and run the main job through it
	@tools/install-test-tools
	@$(BIN)/python -m pytest tests/project/test_package.py

test-slurm: install-dev autosubmit ## Run workflows on a real Slurm of one node (as root; installs Slurm and MariaDB, starts no service)
	@tools/install-test-tools tools/test-tools.txt tools/slurm-packages.txt
	@$(BIN)/python -m pytest tests/slurm

VERSIONS ?=
test-versions: install-dev ## Every command on every version of Autosubmit (VERSIONS="4.1.15 ..."; 10 minutes each)
	@tools/install-test-tools
	@DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python -m tests.versions.record $(VERSIONS)
	@VERSIONS_WRITE=1 VERSIONS="$(VERSIONS)" $(BIN)/python -m pytest tests/versions

test-browser: ## Only the tests in a real browser; screenshots are in .artifacts
	@$(MAKE) --no-print-directory test TESTS=tests/browser

screenshots: test-browser ## Update the pictures of docs/images
	@mkdir -p docs/images
	@for pair in light-dashboard:dashboard run-stopping:run dark-history:history phone-dashboard:phone \
	    admin-check:admin-check admin-import:admin-import admin-runnerrun:admin-runs \
	    admin-first-steps:admin; do \
	  cp .artifacts/$${pair%%:*}.png docs/images/$${pair##*:}.png || exit; done

lint: install-dev ## Check style, types, imports, shell scripts, scripts of the pages, migrations
	@tools/lint

format: install-dev ## Let ruff format and repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/biome check --write runners/static profiles/static

schema: install ## Write openapi.yaml; fails on a warning, and in CI when the committed one was another
	$(CHECK_ENV) $(BIN)/python manage.py spectacular --validate --fail-on-warn --file openapi.yaml
	@[ -z "$$CI" ] || git diff --exit-code --stat openapi.yaml

examples: install-dev ## Record the examples of the OpenAPI document from responses of the service
	@tools/install-test-tools
	@EXAMPLES_WRITE=1 $(BIN)/python -m pytest tests/api/test_examples.py
	@$(MAKE) --no-print-directory schema

cli-commands: install-dev ## Write the commands that the command-line client bundles: runners/cli/commands.json
	@COMMANDS_WRITE=1 $(BIN)/python -m pytest -q tests/cli/test_catalog.py -k bundled_commands_are

cli-docs: install-dev ## Write the reference of the command line: docs/cli-reference.md
	@CLI_DOCS_WRITE=1 $(BIN)/python -m pytest -q tests/cli/test_reference.py -k reference_is

zipapp: ## Build the command-line client as one file, dist/asr; the same source gives the same bytes
	@$(PYTHON) -m runners_project.client_file dist/asr

openapi-lint: ## Check openapi.yaml: the meta-schema of OpenAPI 3.1, Spectral, Redocly
	@tools/sdk/install
	@tools/sdk/lint openapi.yaml

sdk: ## Make the Python, Java, R and TypeScript clients of openapi.yaml in sdk/ (docs/sdk.md)
	@tools/sdk/install
	@for language in python java r typescript; do tools/sdk/generate $$language openapi.yaml sdk/$$language || exit; done

lock: install-dev ## Pin what deployments install, with hashes: requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	    --no-annotate requirements.txt -o requirements.lock

migrations: install ## Fail when a model changed and its migration is missing
	@tools/lint migrations

docs: install-dev ## Build the documents as a site into guide/; a running service shows it at /docs/guide/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

readme: install autosubmit ## Run the commands of the README and the documents as written, against a server installed from the wheel
	@tools/sdk/install
	@$(BIN)/python -m tools.check_documents

reference: ## Install the Autosubmit API 4.2.0, to compare with, into .tools/autosubmit-api
	@tools/autosubmit-api-venv

compat: install-dev reference ## Send the same requests to it and to this service; writes docs/compatibility.md
	@tools/install-test-tools
	@COMPAT_WRITE=1 $(BIN)/python -m pytest tests/compat

bench: install-dev reference ## Measure this service and it side by side (20 minutes); writes docs/benchmarks.md
	@tools/install-test-tools tools/test-tools.txt bench/debian-packages.txt
	@$(BIN)/python -m bench --output docs/benchmarks.md

MINUTES ?= 30
SEED ?= 1
soak: install-dev ## Two nodes under load and faults, compared with what happened on the machines (MINUTES=30 SEED=1)
	@tools/install-test-tools
	@$(BIN)/python -m soak --minutes $(MINUTES) --seed $(SEED)

bench-servers: install-dev ## Compare gunicorn, Granian and waitress, alone and behind nginx (6 minutes); writes docs/benchmarks.md
	@tools/install-test-tools bench/debian-packages.txt
	@tools/make-venv .venv .installed-bench -r bench/requirements.txt
	@$(BIN)/python -m bench.servers --output docs/benchmarks.md

ci: ## What CI runs
	@bash .ci/run

clean: ## Remove what the other targets made, the demo's data included
	rm -rf .venv .tools .demo sdk .pytest_cache .mypy_cache .ruff_cache .import_linter_cache staticfiles
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
