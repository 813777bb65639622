# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-fast test-lowest lint picture settings clean

demo: $(VENV)/.installed
	$(BIN)/bart demo --out demo

test: $(VENV)/.tested
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# For the inner loop: tests of single modules, without those that train or start processes.
test-fast: $(VENV)/.tested
	$(BIN)/python -m pytest tests/unit -m "not slow" -n auto --maxprocesses 4 --dist loadfile

# The lowest versions that pyproject.toml allows, in an environment of their own.
test-lowest:
	.ci/lowest

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; \
	else echo "Dockerfile not checked: no hadolint for this platform"; fi

# README's picture of the terminal, from the result of `make demo`.
picture: demo
	$(BIN)/python docs/picture.py demo

# docs/settings.md, from the configuration.
settings: $(VENV)/.installed
	$(BIN)/python docs/settings.py

clean:
	rm -rf $(VENV) demo

# Torch comes first, at the pinned version: the newest one would bring gigabytes of CUDA.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all]'
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps lddl==0.1.0
	touch $@
