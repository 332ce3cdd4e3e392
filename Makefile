# Set-up is part of every target: `make demo` and `make test` work on a fresh machine with
# Python >= 3.10, a Rust toolchain and a C compiler, and skip what is already there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEPENDENCIES := $(VENV)/.dependencies
EXTENSION := $(VENV)/.extension
RUST_SOURCES := Cargo.toml Cargo.lock rust/metatl-core/Cargo.toml rust/metatl-py/Cargo.toml $(shell find rust/*/src -name "*.rs")
SPORTS ?=
MOVIETWEETINGS ?=
PEERS_DATA := wines=wines $(if $(SPORTS),sports=$(SPORTS))
PEERS_PYTHON ?= $(PYTHON)
PEERS_OPTIONS ?= --trials 3
RESULTS_OPTIONS ?=
# One thread for each side; and memory that is freed and taken again in every step stays with the process.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 METATL_NUM_THREADS=1 \
	MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592

# A worker a processor, eight at most: each holds torch and a data set. Benchmarks need a quiet machine.
IN_PARALLEL := -n logical --maxprocesses 8 --dist worksteal -p no:benchmark

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-faults test-cuda test-rust bench serving-sizes instructions peers evaluators library-rankers training-peers results ablation settings lint format wheel test-wheel deny audit clean

help:  ## Show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 17

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
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "not slow and not faults and not cuda"

test-slow: setup  ## Run the long tests: 100,000 cases a property, long trainings
	$(BIN)/python -m pytest $(IN_PARALLEL) -m slow
	cargo test --release --locked --workspace -- --include-ignored

test-faults: setup  ## Kill every command at every write; damage 100,000 files for each reader
	$(BIN)/python -m pytest $(IN_PARALLEL) -m faults tests/faults

test-cuda: setup  ## Run the tests that need a CUDA device
	$(BIN)/python -m pytest -m cuda

test-rust:  ## Run the Rust tests
	cargo test --release --locked --workspace

bench: setup .venv-peers-rectools/.ready  ## Time every kernel and pipeline beside its peers; write docs/performance.md
	mkdir -p benches/results
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m pytest benches --benchmark-only --benchmark-columns=min,median,rounds --benchmark-json=benches/results/benchmarks.json
	cargo run --quiet --release --locked -p metatl-core --example kernels limits > benches/results/limits.json
	$(BIN)/python benches/summary.py benches/results/benchmarks.json benches/results/limits.json docs/performance.md
	cargo bench --locked -p metatl-core

serving-sizes: setup  ## Measure memory and latency of a recommender by the size of its catalogue; write docs/serving_sizes.md
	$(BIN)/python benches/serving_sizes.py docs/serving_sizes.md

instructions: setup  ## Count the instructions of every kernel; fail where one needs more than its baseline
	command -v valgrind >/dev/null || apt-get install --yes --quiet valgrind
	$(BIN)/python benches/instructions.py

# The peers need Python 3.10 to 3.12, LensKit 3.11 or 3.12 (PEERS_PYTHON names one), and 7 GB with a torch of
# their own.
.venv-peers-%/.ready: benches/peers/requirements-%.txt
	$(PEERS_PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12) and "the peers need Python 3.10 to 3.12: PEERS_PYTHON=path")'
	test -x $(@D)/bin/python || $(PEERS_PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --no-cache-dir -r $<
	touch $@

peers: setup .venv-peers-torch/.ready .venv-peers-implicit/.ready  ## Train public implementations of the baselines beside ours; write docs/baselines.md
	set -e; for pair in $(PEERS_DATA); do \
		folder=runs/peers/$${pair%%=*}; \
		$(BIN)/python benches/peers/export.py "$${pair#*=}" $$folder; \
		$(ONE_THREAD) .venv-peers-implicit/bin/python benches/peers/implicit_bpr.py $$folder $(PEERS_OPTIONS); \
		$(ONE_THREAD) .venv-peers-torch/bin/python benches/peers/recbole_gru4rec.py $$folder $(PEERS_OPTIONS); \
		$(ONE_THREAD) .venv-peers-torch/bin/python benches/peers/rectools_models.py $$folder $(PEERS_OPTIONS); \
	done
	$(ONE_THREAD) $(BIN)/python benches/peers/compare.py $(foreach pair,$(PEERS_DATA),runs/peers/$(firstword $(subst =, ,$(pair))))

evaluators: setup .venv-peers-torch/.ready  ## Time the evaluation of given scores beside libraries' own; write docs/evaluators.md
	$(ONE_THREAD) $(BIN)/python benches/peers/evaluators.py .venv-peers-torch/bin/python docs/evaluators.md

library-rankers: setup .venv-peers-lenskit/.ready  ## Time top N, negatives and metrics beside implicit's and LensKit's; write docs/library_rankers.md
	$(ONE_THREAD) $(BIN)/python benches/peers/rankers.py .venv-peers-lenskit/bin/python docs/library_rankers.md

training-peers: setup .venv-peers-torch/.ready  ## Time a training step of SASRec beside RecBole's; write docs/training_peers.md
	$(BIN)/python benches/peers/export.py wines runs/peers/wines
	$(BIN)/python benches/peers/training_steps.py .venv-peers-torch/bin/python runs/peers/wines docs/training_peers.md

results: setup  ## Regenerate docs/results.md and docs/results (SPORTS=path MOVIETWEETINGS=path name data that the repository does not hold; RESULTS_OPTIONS=--only-finished fits nothing)
	$(BIN)/python -m metatl.cli.metatl.results --data wines $(if $(MOVIETWEETINGS),--data movietweetings=$(MOVIETWEETINGS)) $(if $(SPORTS),--data sports=$(SPORTS)) --k 2,3,4 --seeds 5 --out runs/results --kept docs/results --markdown docs/results.md $(RESULTS_OPTIONS)

ablation: setup  ## Measure on X-Wines what each step from `official` to `paper` to `tuned` changes; write docs/ablation.md
	$(BIN)/metatl reproduce ablation --data wines --seeds 1 --jobs 2 --out runs/ablation
	cp runs/ablation/ablation.md runs/ablation/ablation.png docs/

settings: setup  ## Write docs/settings.md
	$(BIN)/metatl settings --markdown > docs/settings.md

lint: setup  ## Check formatting, lints, layers, types and stubs
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
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
	PYTHONPATH=dist/unpacked $(BIN)/python -m pytest tests/kernels/test_threads_and_signals.py

deny:  ## Check licences, bans and sources of the Rust dependencies
	command -v cargo-deny >/dev/null || cargo install --quiet --locked cargo-deny
	cargo deny --locked check licenses bans sources

audit: $(DEPENDENCIES)  ## Look the dependencies up in the advisory databases (needs the network)
	command -v cargo-deny >/dev/null || cargo install --quiet --locked cargo-deny
	cargo deny --locked check advisories || { echo "audit: the Rust advisories were not checked, or one was found (see above)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit || { echo "audit: the Python advisories were not checked, or one was found (see above)" >&2; exit 1; }

clean:  ## Delete what was built and installed
	rm -rf $(VENV) .venv-peers-* target dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
