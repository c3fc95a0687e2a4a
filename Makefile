# Everything a developer runs; `make` alone lists it. One profile, release: docs/decisions/0005-one-cargo-profile.md.
SHELL := /bin/bash
CARGO ?= cargo
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-tests setup-programs build test soak demo bench-step bench-data bench-ckpt bench-launch bench-telemetry lint fmt deny clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Find libtorch (LIBTORCH=DIR) or install it into the cache that all clones share, and link .libtorch to it
	@scripts/setup-libtorch.sh

setup-tests: ## Find or install the Python (torch, timm) that the tests check against, in the cache that all clones share, and link .venv to it
	@scripts/setup-tests.sh

setup-programs: ## Install Chromium and Prometheus, which two tests want (Debian, as root)
	@scripts/setup-programs.sh

build: setup ## Build spinectl and spinectl-rank (the first time about 7 minutes, for libtorch's bindings)
	$(CARGO) build --release --workspace

# The workspace is built first: the tests run the two binaries. Several run at once on the same cores, so libtorch's threads must not spin
# while they wait for each other. Unit and integration tests alone in either runner, as nextest has no doc tests.
test: export OMP_WAIT_POLICY = passive
test: setup setup-tests lint build ## Check formatting and lints, build, and run every test
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --release --workspace; \
	else \
		$(CARGO) test --release --workspace --lib --bins --tests; \
	fi

# The counts that docs/reliability.md states; `make test` deals a tenth. SPINECTL_SOAK_SEED=N repeats one.
soak: export OMP_WAIT_POLICY = passive
soak: export SPINECTL_SOAK = 1
soak: setup build ## Kill ranks, launchers and writers of checkpoints hundreds of times (about 2 hours)
	$(CARGO) test --release -p spinectl-checkpoint --test checkpoint soak -- --nocapture --test-threads 1
	$(CARGO) test --release -p spinectl-tests --test faults --test scheduler -- --nocapture --test-threads 1

demo: setup build ## Train a small pipeline on a phantom with two CPU ranks, predict, and show the metrics
	@scripts/demo.sh

bench-step: setup setup-tests build ## Time and memory of a training step on this machine's CPUs, beside PyTorch's (about 15 minutes; let the machine be quiet)
	@.venv/bin/python tests/python/bench_step.py --spinectl "$${CARGO_TARGET_DIR:-target}/release/spinectl"

# The peer's own scripts and generator; a folder of yours by PEER=DIR.
PEER ?= ../shared/bench
bench-data: setup setup-tests ## Samples/s from DICOM and from the cache to augmented tensors, beside the Python peer in PEER=DIR (about 10 minutes; let the machine be quiet)
	$(CARGO) build --release --workspace --example data_throughput
	@.venv/bin/python tests/python/bench_data/bench_data.py --peer "$(PEER)" \
		--ours "$${CARGO_TARGET_DIR:-target}/release/examples/data_throughput"

bench-launch: setup setup-tests build ## Launch, failure and restart beside torchrun's, by the peer's scripts in PEER=DIR (about 10 minutes; let the machine be quiet)
	@.venv/bin/python tests/python/bench_launch.py --peer "$(PEER)" --spinectl "$${CARGO_TARGET_DIR:-target}/release/spinectl"

bench-telemetry: setup setup-tests build ## What TensorBoard, OpenTelemetry and Prometheus take from an update, with collectors that are well or ill (about 10 minutes; let the machine be quiet)
	@.venv/bin/python tests/python/bench_telemetry.py --spinectl "$${CARGO_TARGET_DIR:-target}/release/spinectl"

bench-ckpt: setup setup-tests ## How long a training stands still for a checkpoint, beside torch.save's time by the peer in PEER=DIR (about 10 minutes; needs 10 GB of disk at DIR=.)
	$(CARGO) build --release --workspace --example checkpoint_stall
	@"$${CARGO_TARGET_DIR:-target}/release/examples/checkpoint_stall" "$(DIR)"
	@.venv/bin/python "$(PEER)/bench_ckpt.py" --dir "$(DIR)" --repeats 3
DIR ?= .

lint: setup ## Check formatting (rustfmt) and lints (clippy); changes nothing
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt --all

deny: ## Check licences, advisories and sources of the dependencies (deny.toml)
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "cargo-deny is not installed: cargo install --locked cargo-deny" >&2; exit 3; }
	$(CARGO) deny check

clean: ## Remove what was built, .venv and demo/ (what lies in the cache stays)
	$(CARGO) clean
	rm -rf .venv demo
