# make demo: install, then train the default run.   make test: lint, types, tests.   Both are quick the second time.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# With all cores, where pip takes one; packages may contain files for other versions of Python.
COMPILE := $(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null || true

.PHONY: demo test test-all lint clean

demo: .venv/installed
	$(BIN)/python -m vision_lab
	@echo
	@echo "Curves and images:  $(BIN)/tensorboard --logdir outputs"

test: lint
	$(BIN)/python -m pytest

test-all: lint
	$(BIN)/python -m pytest -m ""

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A stamp is newer than the files that say what to install, or it is made again.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -e .
	$(COMPILE)
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -e '.[dev]'
	$(COMPILE)
	touch .venv/installed $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache dist
