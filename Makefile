# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test slow peers lint docs clean help

help:
	@echo "make demo   install into .venv and run the whole pipeline on the embedded default"
	@echo "make test   install what is lacking and run the tests"
	@echo "make slow   the tests that take minutes or need the real data"
	@echo "make peers  the libraries that tests and benchmarks compare with"
	@echo "make lint   ruff, mypy and who may import whom"
	@echo "make docs   the documentation as a site, in build/site"
	@echo "make clean  remove .venv and caches (runs/ stays)"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(VENV)/.installed-peers: $(VENV)/.installed-dev benchmarks/peers.txt
	$(BIN)/python -m pip install --quiet --no-deps --requirement benchmarks/peers.txt
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/jernih run configs/phantom.yaml

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(VENV)/.installed-dev
	$(BIN)/python -m mkdocs build --strict

peers: $(VENV)/.installed-peers

test: lint peers
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

slow: peers
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
