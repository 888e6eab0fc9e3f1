# pgflight: the few commands a person needs.  `make demo` and `make test` start from nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ARGS ?=

.PHONY: setup demo test test-long torture soak check format bench lock clean

# Everything for development; `make demo` needs much less.
setup: $(VENV)/.complete

$(VENV)/.complete: $(VENV)/.demo
	$(PIP) -e './client[pandas,polars,dask,ray,spark]' -e '.[demo,test]'
	touch $@

$(VENV)/.demo: pyproject.toml client/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("pgflight needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e './client[pandas,polars]' -e '.[demo]'
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python -m demo $(ARGS)

# Two processes, each with its own PostgreSQL: one waits for its servers while the other computes.
test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

test-long: setup
	$(BIN)/python -m pytest -m slow --timeout 3600 $(ARGS)

torture: setup
	$(BIN)/python -m tests.torture $(ARGS)

soak: setup
	$(BIN)/python -m tests.torture.soak $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:randomly tests/test_layers.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(PIP) -e '.[bench]'
	$(BIN)/python -m benchmark $(ARGS)

# Exact versions, with hashes, of what the images install.
LOCK = $(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --custom-compile-command "make lock" --extra oidc

lock: $(VENV)/.demo
	$(PIP) -e '.[lock]'
	$(LOCK) --output-file requirements.lock
	$(LOCK) --extra cuda13 --output-file requirements-cuda13.lock

clean:
	rm -rf $(VENV) build dist .demo
