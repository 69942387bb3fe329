# Needs python3 (3.12 or later) and make; everything else goes into $(VENV).
#   make demo            PYTHON=python3.13 or VENV=/some/where if the defaults do not suit
#   make test WORKERS=0  in one process, e.g. to debug
VENV ?= .venv
PYTHON ?= python3
WORKERS ?= 2
PYTEST_ARGS ?=
DEMO_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.bayes-mfg-installed
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-ci test-all lint ruff mypy format dist clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)$$/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" read -r name text; do printf 'make %-10s %s\n' "$$name" "$$text"; done

install: $(STAMP) ## make the virtual environment (done once, and again when pyproject.toml or constraints.txt change)

$(STAMP): pyproject.toml constraints.txt
	@if [ ! -x $(BIN)/python ]; then \
	  command -v $(PYTHON) >/dev/null 2>&1 || { echo "bayes-mfg needs Python 3.12 or later, and '$(PYTHON)' was not found; name one with: make PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || { echo "bayes-mfg needs Python 3.12 or later, but '$(PYTHON)' is $$($(PYTHON) -c 'import platform; print(platform.python_version())'); name another with: make PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	  echo "$(PYTHON) -m venv $(VENV)"; $(PYTHON) -m venv $(VENV); \
	fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --default-pip >/dev/null # uv makes environments without pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP) ## fit the SIR game to the 1978 school outbreak: summary, fit and report
	$(BIN)/bayes-mfg demo $(DEMO_ARGS)

test: lint ## ruff, mypy and the quick tests
	$(PYTEST) -m "not slow"

test-ci: lint ## ruff, mypy and all tests but those marked long; what CI runs
	$(PYTEST) -m "not long"

test-all: lint ## ruff, mypy and all tests, the slow and the long statistical ones included
	$(PYTEST)

lint: ruff mypy ## ruff (lint and format) and mypy, changing nothing

ruff: $(STAMP) ## lint and format check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

mypy: $(STAMP) ## type check; shows mypy models/ and inference/ where they install (see pyproject.toml)
	@mkdir -p build/typecheck/bayes_mfg
	@ln -sfn ../../../models build/typecheck/bayes_mfg/models && ln -sfn ../../../inference build/typecheck/bayes_mfg/inference
	$(BIN)/mypy

format: $(STAMP) ## repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: $(STAMP) ## build the sdist, and from it the wheel, into dist/
	rm -rf dist build/lib build/bdist.*
	$(BIN)/python -m build --outdir dist .

clean: ## remove what was built and cached, but not the environment ($(VENV))
	rm -rf build dist *.egg-info .jax_cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find bayes_mfg models inference tests -name __pycache__ -type d -prune -exec rm -rf {} +
