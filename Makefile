# Every target sets up what it needs in .venv by itself, at the versions of constraints.txt.

# The interpreter that .venv is made of: 3.11 (the tested one) or newer.
PYTHON ?= $(shell python3.11 -V >/dev/null 2>&1 && echo python3.11 || echo python3)

# The build of torch, by default the one that pip finds for this machine. Another build of the same
# version is a wheel's path, or for example "torch==2.13.0+cpu --extra-index-url URL".
# To change it later: make clean, then the target again.
TORCH ?= torch==2.13.0

# Processes that share the tests, file by file in their order: the end-to-end tests come first.
WORKERS ?= 2
SHARED := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install --disable-pip-version-check --no-compile -c constraints.txt
MANIFESTS := pyproject.toml constraints.txt

# Nothing from outside .venv takes part. pip leaves bytecode to the first import (half a minute
# less), so that imports must be allowed to write it.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE PIP_USER PIP_TARGET PIP_PREFIX

.DEFAULT_GOAL := help
.PHONY: help quickstart test bench chaos check clean

help:  ## show this list
	@echo "make TARGET [PYTHON=python3.11] [TORCH=...]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(VENV)/.installed-run  ## set up, run the small sweep, print where its report lies
	$(RUN) sweep.py +sweep=quickstart

test: $(VENV)/.installed-dev  ## set up, run all tests that need no GPU
	$(RUN) -m pytest -q -m "not gpu and not chaos" $(SHARED)

chaos: $(VENV)/.installed-dev  ## set up, kill, starve and stop whole sweeps; three quarters of an hour
	$(RUN) -m pytest -q -m chaos

bench: $(VENV)/.installed-dev  ## set up, time steps beside MeZO's, write bench.json; a quarter of an hour
	$(RUN) tests/bench/step.py
	$(RUN) tests/bench/replay.py --tuning full --precision master --rounds 3
	$(RUN) tests/bench/startup.py

check: $(VENV)/.installed-dev  ## set up, check format, lint, types and import rules
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

clean:  ## remove .venv, builds and caches; results stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first, together with what its build depends on; setuptools before the project and
# the one package without a wheel, which are built with it; pip because a recent one resolves
# several times faster.
$(VENV)/.installed-torch: $(MANIFESTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make TARGET PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) pip setuptools
	$(INSTALL) $(TORCH)
	@touch $@

$(VENV)/.installed-run: $(VENV)/.installed-torch
	$(INSTALL) --no-build-isolation -e '.[run,analysis]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-run
	$(INSTALL) --no-build-isolation -e '.[run,analysis,dev]'
	@touch $@
