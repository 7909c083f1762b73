# Building, starting and checking Hoopoe. `make` alone lists what there is.
#
# Building writes nothing into this folder: its products go to CARGO_TARGET_DIR, by default a cache
# folder of the user's (HOOPOE_CACHE), beside RocksDB's library, which is built once per machine.
#
#   ARGS=…          is passed on: make run ARGS='--config my.toml', make test ARGS=retained
#   HOOPOE_CACHE    the cache folder (default ~/.cache/hoopoe)
#   ROCKSDB_LIB_DIR a folder with your own librocksdb.a of the version in Cargo.lock

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory --no-builtin-rules
.PHONY: help run build test crash abuse sim restart-speed check bench bench-report load-tester micro fmt packages test-packages rocksdb

ARGS ?=
export HOOPOE_CACHE ?= $(HOME)/.cache/hoopoe
export CARGO_TARGET_DIR ?= $(HOOPOE_CACHE)/target

ifndef ROCKSDB_LIB_DIR
rocksdb_script := broker/store/native/build-rocksdb.sh
ROCKSDB_LIB_DIR := $(shell $(rocksdb_script) --print-dir)
endif
export ROCKSDB_LIB_DIR
export ROCKSDB_STATIC := 1

say = @printf '\n== %s\n' "$(1)"

help: ## List the targets
	@printf 'Hoopoe, an MQTT broker for instant messaging\n\n'
	@awk -F ': .*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@printf '\nBuild products: %s\n' "$(CARGO_TARGET_DIR)"

run: build ## Build the broker and start it; ARGS='…' goes to `hoopoe serve`
	$(call say,Starting the broker; Ctrl-C ends it)
	@exec "$(CARGO_TARGET_DIR)/release/hoopoe" serve $(ARGS)

build: packages rocksdb ## Build the broker for use, without starting it
	$(call say,Building the broker)
	cargo build --release --locked -p hoopoe

# One selection of packages and one profile for everything below, so that each dependency is
# compiled once: `--bins --tests` brings the programs the whole-broker tests start.
test: test-packages rocksdb ## Run the whole test suite; ARGS='…' goes to `cargo test`
	$(call say,Client libraries for the tests)
	@tests/clients/install.sh
	$(call say,Building the tests)
	cargo build --workspace --locked --bins --tests
	$(call say,Running the tests)
	@clients="$$(tests/clients/install.sh --print-dir)"; \
	export PATH="$$PATH:/usr/sbin:/sbin"; \
	export HOOPOE_BIN="$(CARGO_TARGET_DIR)/debug/hoopoe"; \
	export HOOPOE_BENCH_BIN="$(CARGO_TARGET_DIR)/debug/hoopoe-bench"; \
	export HOOPOE_PYTHON="$$clients/python/bin/python"; \
	export HOOPOE_NODE_MODULES="$$clients/node_modules"; \
	export HOOPOE_CHROMIUM="$${HOOPOE_CHROMIUM:-$$(command -v chromium || command -v google-chrome)}"; \
	set -x; cargo test --workspace --locked $(ARGS) </dev/null
	@$(if $(ARGS),,set -x; cargo test --workspace --locked $(planted) </dev/null)

# The simulation against brokers with bugs planted on purpose: it has to find each. They exist with
# this feature alone, and `hoopoe` does not build with it.
planted := --features hoopoe-tests/planted --test planted

sim: rocksdb ## Simulate a broker in one thread; RUNS=100000, or SEED=… CAST=plain|chat to show one run again
	$(call say,Building the simulation)
	cargo test --workspace --locked --no-run --test simulation
	$(call say,Simulating)
	@$(if $(SEED),HOOPOE_SIM_SEED=$(SEED)) $(if $(CAST),HOOPOE_SIM_CAST=$(CAST)) \
	$(if $(RUNS),HOOPOE_SIM_RUNS=$(RUNS),$(if $(SEED),,HOOPOE_SIM_RUNS=20000)) \
	cargo test --workspace --locked --test simulation -- --nocapture nothing_ </dev/null

KILLS ?= 300
SEED ?=
CAST ?=

crash: test-packages rocksdb ## Kill the broker KILLS=300 times under load and audit what clients saw; SEED=… replays
	$(call say,Building the broker and the crash test)
	cargo build --workspace --locked --bins --tests
	$(call say,Killing the broker)
	@"$(CARGO_TARGET_DIR)/debug/crash" --kills $(KILLS) $(if $(SEED),--seed $(SEED)) $(if $(CAST),--cast $(CAST)) $(ARGS)

# The tests of overload and abuse, which `make test` runs in small.
abuse: export HOOPOE_ABUSE_SCALE ?= 10
abuse: test-packages rocksdb ## Overload and abuse at length; HOOPOE_ABUSE_SCALE=10 times of everything
	$(call say,Building)
	cargo build --workspace --locked --bins --tests
	$(call say,Overload and abuse ($(HOOPOE_ABUSE_SCALE) times))
	@export HOOPOE_BIN="$(CARGO_TARGET_DIR)/debug/hoopoe"; \
	set -x; cargo test --locked -p hoopoe-tests --test abuse -- --nocapture $(ARGS) </dev/null

check: packages rocksdb ## Formatting, lints, documentation and the house rules
	$(call say,Formatting)
	cargo fmt --all --check
	$(call say,Lints)
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(call say,Documentation)
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
	$(call say,House rules (imports and sizes and names and dependencies))
	cargo test --workspace --locked --test house_rules </dev/null

# What runs by itself says what this build can do: the broker beside a relay that only copies.
bench_default := versus --with hoopoe --with relay --rounds 3 --duration 3 pairs1 group200 pairs1-2000

bench: $(if $(ARGS),,micro) load-tester ## Micro benchmarks and a short load test; ARGS='…' goes to `hoopoe-bench`
	$(call say,Running the load tester)
	@"$(CARGO_TARGET_DIR)/release/hoopoe-bench" $(or $(ARGS),$(bench_default))

load-tester: build
	$(call say,Building the load tester)
	cargo build --release --locked -p hoopoe-bench

REPORT ?= $(CARGO_TARGET_DIR)/bench-report

bench-report: load-tester ## Measure the rows of the targets into REPORT=folder, in ten to twenty minutes
	$(call say,Measuring)
	@benches/report/report.sh "$(CARGO_TARGET_DIR)/release/hoopoe-bench" "$(REPORT)"

# The criterion ones; `rows` and `shard` of the store print tables of their own and take minutes.
micro_benches := --bench codec --bench index --bench session --bench commit --bench append
micro_packages := -p hoopoe-codec -p hoopoe-core -p hoopoe-store -p hoopoe-im

micro: rocksdb ## Micro benchmarks: codec, index, session, commits, conversations; ARGS='…' for `cargo bench`
	$(call say,Micro benchmarks)
	cargo bench --locked $(micro_packages) $(or $(ARGS),$(micro_benches))

restart-speed: build ## Measure a start on a million stored messages
	$(call say,Building the test)
	cargo build --workspace --locked --bins --tests
	$(call say,Filling a store and starting on it)
	HOOPOE_RESTART_LONG=1 HOOPOE_BIN="$(CARGO_TARGET_DIR)/release/hoopoe" \
		cargo test --workspace --locked --test disk a_start_on_a_full_store </dev/null

fmt: ## Format the code
	cargo fmt --all

packages:
	@.ci/packages build

test-packages:
	@.ci/packages test

rocksdb: packages
	@$(if $(rocksdb_script),$(rocksdb_script))
