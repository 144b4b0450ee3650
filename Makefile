# `make repro` and `make test` are all that a newcomer needs; every target makes the virtual environment first.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
# Results are compared with those of this commit at the end of `make repro`.
PROFILE ?=
SET ?=

# Telemetry of DVC, Ray and MLflow is off; the tools of the environment come first on the path.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := true
export DO_NOT_TRACK := true
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help environment repro test test-slow ui lint lock clean
.DEFAULT_GOAL := help

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python %d.%d is too old: 3.11 or newer is needed; name one with make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@echo "== making the virtual environment $(VENV) (about 2.5 GB to download, once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1'
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --require-hashes -r requirements.lock
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

environment: $(READY) ## only the virtual environment

repro: $(READY) ## the whole pipeline, from data to report (PROFILE=cifar10 and SET="data.source=/path" compose that first)
ifneq ($(PROFILE)$(SET),)
	@echo "== composing params.yaml"
	@python -m pipeline compose $(or $(PROFILE),$(shell sed -n 's/^profile: *//p' params.yaml)) $(SET)
endif
	@echo "== dvc repro"
	@git -c safe.directory='*' rev-parse --git-dir >/dev/null 2>&1 || dvc config --local core.no_scm true # e.g. a ZIP download
	@dvc repro
	@python -m pipeline compare

test: $(READY) ## the quick tests (minutes)
	@echo "== quick tests"
	@python -m pytest -m 'not slow' -n 2 --dist loadfile

test-slow: $(READY) ## the slow tests: kills, searches, servers, browsers
	@echo "== slow tests"
	@python -m pytest -m slow tests/unit -n 2
	@python -m pytest -m slow tests/golden tests/integration -n 2 --dist loadfile

ui: $(READY) ## the MLflow UI on http://127.0.0.1:5000 (PORT=...)
	@python -m pipeline ui --port $(or $(PORT),5000)

lint: $(READY) ## ruff, mypy and the import contracts
	@echo "== ruff, mypy, import-linter"
	@ruff check
	@ruff format --check
	@mypy
	@lint-imports --no-logo

lock: $(READY) ## resolve pyproject.toml anew into requirements.lock (KEEP=1 changes no version that is there)
	@# uv resolves no project that is marked as unmanaged, which ours is for `uv run`: it gets a copy without the mark
	@rm -rf .lock && mkdir .lock && sed '/^\[tool.uv\]/,/^$$/d' pyproject.toml > .lock/pyproject.toml
	@cd .lock && uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    $(if $(KEEP),,--upgrade) --group dev pyproject.toml --output-file ../requirements.lock
	@rm -rf .lock

clean: ## remove the virtual environment and caches; data, runs and results stay
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
