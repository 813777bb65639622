# `make demo` and `make test` set up everything they need on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-fast test-lowest lint picture settings clean

demo: $(VENV)/.installed
	$(BIN)/bart demo --out demo

# Files start in the order of their folders, the end-to-end tests before the unit tests: xdist's own
# order, by number of tests, would start the few long ones last, on one core.
test: $(VENV)/.tested
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# For the inner loop: unit tests, without those that train or start processes.
test-fast: $(VENV)/.tested
	$(BIN)/python -m pytest tests/unit -m "not slow" -n auto --maxprocesses 4 --dist loadfile

# Run every stage with the oldest versions that pyproject.toml allows, in a separate environment.
test-lowest:
	.ci/lowest

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; \
	else echo "Dockerfile not checked: no hadolint for this platform"; fi

# Draw the terminal picture of the README from the result of `make demo`.
picture: demo
	$(BIN)/python docs/picture.py demo

# Generate docs/settings.md from the configuration.
settings: $(VENV)/.installed
	$(BIN)/python docs/settings.py

clean:
	rm -rf $(VENV) demo

# Install torch first, at the pinned version: the newest one would pull in gigabytes of CUDA.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all]'
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps lddl==0.1.0
	touch $@
