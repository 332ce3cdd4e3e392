# Set-up is part of every target: `make demo` and `make test` work on a fresh machine with
# Python >= 3.10, a Rust toolchain and a C compiler, and skip what is already there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEPENDENCIES := $(VENV)/.dependencies
EXTENSION := $(VENV)/.extension
RUST_SOURCES := Cargo.toml Cargo.lock $(wildcard rust/*/Cargo.toml rust/*/src/*.rs rust/*/src/*/*.rs)
SPORTS ?=
MOVIETWEETINGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-rust bench results lint format wheel test-wheel deny audit clean

help:  ## Show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(DEPENDENCIES): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "metatl needs Python 3.10 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

$(EXTENSION): $(DEPENDENCIES) $(RUST_SOURCES)
	$(BIN)/maturin develop --release --quiet
	touch $@

setup: $(EXTENSION)  ## Create .venv, install the dependencies, build the extension

demo: setup  ## Train on the bundled wines, evaluate beside the simple systems, recommend wines to new customers
	$(BIN)/python examples/wines.py

test: setup  ## Run the Python tests
	$(BIN)/python -m pytest -m "not slow and not cuda"

test-slow: setup  ## Run the long tests: 100,000 cases a property, long trainings
	$(BIN)/python -m pytest -m slow
	cargo test --release --locked --workspace -- --include-ignored

test-rust:  ## Run the Rust tests
	cargo test --release --locked --workspace

bench: setup  ## Time every kernel and pipeline beside its peers; write docs/performance.md
	mkdir -p benches/results
	$(BIN)/python -m pytest benches --benchmark-only --benchmark-columns=min,median,rounds --benchmark-json=benches/results/benchmarks.json
	$(BIN)/python benches/summary.py benches/results/benchmarks.json docs/performance.md
	cargo bench --locked -p metatl-core

results: setup  ## Regenerate docs/results.md (SPORTS=path MOVIETWEETINGS=path name data that the repository does not hold)
	$(BIN)/python -m metatl.experiments.results --data wines $(if $(MOVIETWEETINGS),--data movietweetings=$(MOVIETWEETINGS)) $(if $(SPORTS),--data sports=$(SPORTS)) --k 2,3,4 --seeds 5 --out runs/results --markdown docs/results.md

lint: setup  ## Check formatting, lints, types and stubs
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest metatl._metatl

format:  ## Format everything
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The system's unwinder, by its path: zig would put in one of its own, which crashes when the interpreter ends
# under a waiting thread (before Python 3.14 it does so by unwinding that thread).
wheel: $(DEPENDENCIES)  ## Build one abi3 manylinux2014 wheel into dist/
	PATH="$(CURDIR)/$(BIN):$$PATH" maturin build --release --zig --compatibility manylinux2014 --out dist \
		-- -C link-arg="$$(cc -print-file-name=libgcc_s.so.1)"

test-wheel: wheel  ## Run the tests of threads and signals with the wheel's extension
	rm -rf dist/unpacked
	$(BIN)/python -m zipfile -e dist/metatl-*.whl dist/unpacked
	PYTHONPATH=dist/unpacked $(BIN)/python -m pytest tests/test_threads_and_signals.py

deny:  ## Check licences, bans and sources of the Rust dependencies
	command -v cargo-deny >/dev/null || cargo install --quiet --locked cargo-deny
	cargo deny --locked check licenses bans sources

audit: $(DEPENDENCIES)  ## Look the dependencies up in the advisory databases (needs the network)
	command -v cargo-deny >/dev/null || cargo install --quiet --locked cargo-deny
	cargo deny --locked check advisories || { echo "audit: the Rust advisories were not checked, or one was found (see above)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit || { echo "audit: the Python advisories were not checked, or one was found (see above)" >&2; exit 1; }

clean:  ## Delete what was built and installed
	rm -rf $(VENV) target dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
