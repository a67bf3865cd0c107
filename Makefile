# Thin on purpose: what takes more than a few lines is in e2e/, in Rust or Go.
SHELL := /bin/sh
CARGO ?= cargo
# Compiled once for all checkouts on this machine.
export TANKA_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tanka
export CARGO_TARGET_DIR ?= $(TANKA_CACHE)/target
.DEFAULT_GOAL := help

.PHONY: help deps demo down dev test test-full e2e sweep lint generate build images kubeconfig status bench bench-api load bench-operator bench-realtime

help: ## say what each target does
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what a bare machine lacks
	@e2e/deps.sh

demo: deps ## from nothing to a platform that answers, on a real cluster
	@$(CARGO) e2e demo

down: ## remove every trace of the demo's cluster
	@$(CARGO) e2e down

dev: deps ## the API alone, on a real PostgreSQL and Redis on loopback
	@$(CARGO) e2e dev

test: deps ## all layers of tests
	@$(CARGO) e2e test

test-full: test ## tests, and the scenarios and campaigns that take longer
	@$(CARGO) e2e scenarios
	@$(CARGO) e2e campaign

sweep: deps ## the operator under faults at each of its requests, against a real API server
	@$(CARGO) e2e sweep

e2e: deps ## all end-to-end scenarios, or those in NAMES, on a cluster of three nodes
	@$(CARGO) e2e scenarios $(NAMES)

lint: ## format, clippy, licences and duplicates, unused dependencies
	@$(CARGO) e2e lint

generate: ## write the files that are made from code
	@$(CARGO) e2e generate

build: ## compile everything
	@$(CARGO) build --workspace --all-targets

images: deps ## build the container images
	@$(CARGO) e2e images build

kubeconfig: ## print the path of the demo's kubeconfig
	@$(CARGO) e2e kubeconfig

bench-realtime: deps ## measure fan-out, memory, recovery and losses of real time over two servers, optimised
	@$(CARGO) run --quiet --profile optimised --package e2e -- bench-realtime

bench-api: deps ## measure requests beside FastAPI and beside a bare server, optimised
	@$(CARGO) run --quiet --profile optimised --package e2e -- bench-api

load: deps ## people who use the API, played by k6: all scenarios, or those in NAMES
	@$(CARGO) run --quiet --profile optimised --package e2e -- load $(NAMES)

bench: deps ## measure boot, readiness and failover, several times
	@$(CARGO) e2e bench

bench-operator: deps ## measure what a hundred platforms at rest cost
	@$(CARGO) e2e bench-operator
