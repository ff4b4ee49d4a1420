# What CI runs too. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where tests/setup.sh installs what the tests need.
export DRAWBRIDGE_TOOLS ?= $(CURDIR)/.tools
# `make test T=auth` runs the tests whose names contain `auth`.
T ?=

BUF := $(DRAWBRIDGE_TOOLS)/node/node_modules/.bin/buf
DENY := $(DRAWBRIDGE_TOOLS)/cargo/bin/cargo-deny

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: run
run: ## Start the whole mesh in one process.
	cargo run --release

.PHONY: test
test: ## Install what tests need, then run all of them, or those that T=… names.
	tests/setup.sh test
	cargo test --workspace --locked -- $(T)
ifeq ($(T),)
	tests/fuzz/run.sh $(if $(CI),60,10)
endif

.PHONY: bench
bench: ## What the edge, its duties, decisions, credentials and scale cost, each beside the same without, in ten minutes.
	cargo bench --locked --package drawbridge-tests --bench path
	cargo bench --locked --package drawbridge-tests --bench scale
	cargo bench --locked --package drawbridge-tests --bench decisions
	tests/setup.sh test
	cargo bench --locked --package drawbridge-tests --bench duties
	cargo bench --locked --package drawbridge-tests --bench credentials

# For how long each target runs, or how often in all.
SECONDS ?= 60
RUNS ?=

.PHONY: fuzz
fuzz: ## Fuzz every entry point, or the one that T=… names (entry, arguments, sequences), for SECONDS=60, or RUNS=100000 times, optimized.
	RUNS=$(RUNS) tests/fuzz/run.sh $(SECONDS) $(T)

.PHONY: conformance
conformance: ## The official MCP conformance suite against the real edge; `make test` runs it too.
	tests/setup.sh test
	cargo test --package drawbridge-tests --test e2e --locked -- mcp::conformance --nocapture

.PHONY: keycloak-test
keycloak-test: ## Sign in at a real Keycloak, which Maven brings and Java runs; `make test` leaves it out.
	tests/setup.sh keycloak
	cargo test --package drawbridge-tests --test e2e --locked -- auth::keycloak --ignored --nocapture

.PHONY: validators-test
validators-test: ## Compare findings about invoices with the official rules of EN 16931 (Java and Maven); `make test` leaves it out.
	tests/setup.sh validators
	DRAWBRIDGE_INVOICE_SAMPLES=$(DRAWBRIDGE_TOOLS)/validators/samples cargo test --package drawbridge-invoices --lib --locked -- \
		invoices:: --ignored --nocapture --test-threads=1

.PHONY: terraform-test
terraform-test: ## Set a Vault up by Terraform as `drawbridge vault bootstrap` does; `make test` leaves it out.
	tests/setup.sh test
	cargo test --package drawbridge-tests --test e2e --locked -- credentials::terraform --ignored --nocapture

.PHONY: lint
lint: ## Formatting, clippy, docs, protos, policies, dependencies and the arrows between crates.
	tests/setup.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
	cargo run --quiet --locked --package drawbridge-proto --example descriptors | $(BUF) lint - --path drawbridge
	cargo run --quiet --locked -- policy check --deny-warnings
	cargo run --quiet --locked -- policy test
	cargo run --quiet --locked -- policy schema --check
	cargo run --quiet --locked -- catalog lock --check
	$(DENY) --log-level error check bans licenses sources
	tests/advisories.sh
	tests/advisories_test.sh
	tests/arrows.sh

.PHONY: audit
audit: ## Known vulnerabilities in dependencies, as in `make lint`; it fails where the advisory database cannot be had.
	tests/setup.sh lint
	tests/advisories.sh required

# Where `make sbom` writes.
SBOM ?= target/sbom

.PHONY: sbom
sbom: ## A software bill of materials (CycloneDX) for each shipped binary, in SBOM=target/sbom.
	tests/setup.sh sbom
	tests/sbom.sh $(SBOM)

.PHONY: format
format: ## Format everything.
	cargo fmt --all
	$(BUF) format -w

JAEGER_VERSION := v2.20.0
.PHONY: jaeger
jaeger: ## Install Jaeger with Go and start it: traces on :4317, its page on http://localhost:16686.
	@command -v go >/dev/null || { echo "Jaeger is built with Go, which is not here: https://go.dev/dl"; exit 1; }
	@test -x $(DRAWBRIDGE_TOOLS)/go/bin/jaeger || \
		GOBIN=$(DRAWBRIDGE_TOOLS)/go/bin go install github.com/jaegertracing/jaeger/cmd/jaeger@$(JAEGER_VERSION)
	$(DRAWBRIDGE_TOOLS)/go/bin/jaeger
