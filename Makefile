# The targets that CI runs too. `make help` lists them.

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
test: ## Install the tests' dependencies, then run all tests, or those named by T=….
	tests/setup.sh test
	cargo test --workspace --locked -- $(T)
ifeq ($(T),)
	tests/fuzz/run.sh $(if $(CI),60,10)
endif

.PHONY: bench
bench: ## Measure the edge, its duties, decisions, credentials and scale, each against a baseline, in ten minutes.
	cargo bench --locked --package drawbridge-tests --bench path
	cargo bench --locked --package drawbridge-tests --bench scale
	cargo bench --locked --package drawbridge-tests --bench decisions
	tests/setup.sh test
	cargo bench --locked --package drawbridge-tests --bench duties
	cargo bench --locked --package drawbridge-tests --bench credentials

# The duration of each fuzz target, or the total number of runs.
SECONDS ?= 60
RUNS ?=

.PHONY: fuzz
fuzz: ## Fuzz every entry point, or T=entry, arguments or sequences, for SECONDS=60, or RUNS=100000 optimized runs.
	RUNS=$(RUNS) tests/fuzz/run.sh $(SECONDS) $(T)

.PHONY: conformance
conformance: ## Run the official MCP conformance suite against the real edge; `make test` runs it too.
	tests/setup.sh test
	cargo test --package drawbridge-tests --test e2e --locked -- mcp::conformance --nocapture

.PHONY: keycloak-test
keycloak-test: ## Sign in at a real Keycloak (Java and Maven); not part of `make test`.
	tests/setup.sh keycloak
	cargo test --package drawbridge-tests --test e2e --locked -- auth::keycloak --ignored --nocapture

.PHONY: jaeger-test
jaeger-test: ## Run the tutorial's trace, and the demo tools, with a real Jaeger (Go); not part of `make test`.
	tests/setup.sh jaeger
	cargo test --workspace --test cli --test e2e --locked -- at_jaeger --ignored --nocapture

.PHONY: validators-test
validators-test: ## Compare invoice findings with the official rules of EN 16931 (Java and Maven); not part of `make test`.
	tests/setup.sh validators
	DRAWBRIDGE_INVOICE_SAMPLES=$(DRAWBRIDGE_TOOLS)/validators/samples cargo test --package drawbridge-invoices --lib --locked -- \
		invoices:: --ignored --nocapture --test-threads=1

.PHONY: terraform-test
terraform-test: ## Set up a Vault with Terraform like `drawbridge vault bootstrap`; not part of `make test`.
	tests/setup.sh test
	cargo test --package drawbridge-tests --test e2e --locked -- credentials::terraform --ignored --nocapture

# The binaries of services in a release build.
BINARIES := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/release

.PHONY: replicas-test
replicas-test: ## Restart, kill, hang and scale replicas at 50 calls a second, in a release build; `make test` does so for shorter.
	tests/setup.sh test
	cargo build --release --locked $(foreach service,auth edge code invoices tickets,--package drawbridge-$(service))
	DRAWBRIDGE_REPLICAS_BINARIES=$(BINARIES) cargo test --workspace --locked --test e2e -- replicas:: --test-threads=1

# The version that `make upgrade-test` upgrades from: a tag or a commit.
BEFORE ?= HEAD~1

.PHONY: upgrade-test
upgrade-test: ## Mix services of this version with those of BEFORE=HEAD~1, and upgrade them under load; not part of `make test`.
	tests/setup.sh test
	tests/setup.sh lint
	tests/upgrade.sh $(BEFORE)

.PHONY: lint
lint: ## Check formatting, clippy, docs, protos, policies, dependencies and the arrows between crates.
	tests/setup.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
	cargo run --quiet --locked --package drawbridge-proto --example descriptors | $(BUF) lint - --path drawbridge
	cargo run --quiet --locked -- policy check --deny-warnings
	cargo run --quiet --locked -- policy test
	cargo run --quiet --locked -- policy schema --check
	cargo run --quiet --locked -- catalog lock --check
	cargo run --quiet --locked -- docs --check
	deploy/grafana/dashboards.py --check
	$(DENY) --log-level error check bans licenses sources
	tests/advisories.sh
	tests/advisories_test.sh
	tests/arrows.sh
	tests/words.sh

.PHONY: audit
audit: ## Check dependencies for known vulnerabilities, like `make lint`; fails if the advisory database is unavailable.
	tests/setup.sh lint
	tests/advisories.sh required

# The output folder of `make sbom`.
SBOM ?= target/sbom

.PHONY: sbom
sbom: ## Write a software bill of materials (CycloneDX) for each shipped binary into SBOM=target/sbom.
	tests/setup.sh sbom
	tests/sbom.sh $(SBOM)

.PHONY: chart-check
chart-check: ## Check deploy/: the Helm chart on Kubernetes 1.28 to 1.37, the Dockerfile, Compose, systemd units; `make test` does it too.
	tests/setup.sh deploy
	tests/deploy/check.sh

.PHONY: alerts-test
alerts-test: ## Break Redis, a tool service and auth, and see alerts in a real Prometheus and Alertmanager; not part of `make test`.
	tests/setup.sh alerts
	cargo test --workspace --locked --test e2e -- metrics::alerts --ignored --nocapture

# Where the images' binaries are optimized across crates: `thin`, or `off`, which takes less time.
LTO ?= thin

.PHONY: images
images: ## Build the image of each service with podman or docker, and print their sizes; LTO=off is quicker.
	LTO=$(LTO) deploy/images.sh

.PHONY: containers-test
containers-test: ## Run the images with podman as chart and Compose file deploy them, and call a tool; not part of `make test`.
	tests/setup.sh containers
	tests/deploy/containers.sh

.PHONY: kubernetes-test
kubernetes-test: ## Deploy the chart with the images into a Kubernetes cluster of one node, and upgrade it under load (Go, root); not part of `make test`.
	tests/setup.sh kubernetes
	tests/kubernetes/run.sh

# The output folder of `make release-check`.
RELEASE ?= target/release-check

.PHONY: release-check
release-check: ## Check that a release is complete: version, changelog, tag, images, chart, SBOM, checksums in RELEASE=target/release-check.
	tests/setup.sh deploy
	tests/setup.sh sbom
	@status=0; tests/release.sh versions || status=1; tests/release.sh notes || status=1; \
		tests/release.sh artifacts $(RELEASE) || status=1; exit $$status

.PHONY: screens
screens: ## Write the screens of the documentation (docs/screens): commands in a terminal, the sign-in page.
	tests/setup.sh screens
	cargo build --locked
	$(DRAWBRIDGE_TOOLS)/screens/bin/python tests/screens/screens.py \
		$(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/debug/drawbridge docs/screens

.PHONY: format
format: ## Format everything.
	cargo fmt --all
	$(BUF) format -w --exclude-path proto/proto/buf

.PHONY: jaeger
jaeger: ## Start Jaeger: traces on :4317, its query API on http://localhost:16686. Builds it with Go the first time.
	tests/setup.sh jaeger
	$(DRAWBRIDGE_TOOLS)/jaeger/jaeger
