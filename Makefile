.DEFAULT_GOAL := help
.PHONY: help run test test-slow test-all lint format types setup lock image clean
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# Extra arguments, for example: make run ARGS="--preset smoke", make test ARGS="-k spans -x"
ARGS ?=
# A file's tests share what is dear to make, so they stay together.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Set up, then run the pipeline: data in, served generator out (ARGS="--preset smoke", STACK=py310)
	@scripts/setup.sh
	@$(BIN)/python local_runner.py run $(ARGS)

test: ## Set up, then run the tests that are not marked slow (ARGS="-k spans")
	@scripts/setup.sh dev
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-slow: ## Run the slow tests only
	@scripts/setup.sh dev
	@$(BIN)/python -m pytest -m slow $(PARALLEL) $(ARGS)

test-all: ## Run every test
	@scripts/setup.sh dev
	@$(BIN)/python -m pytest -m "" $(PARALLEL) $(ARGS)

lint: ## Check style, formatting and which room imports which
	@scripts/setup.sh dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

format: ## Format the code and fix what can be fixed
	@scripts/setup.sh dev
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

types: ## Check types
	@scripts/setup.sh dev
	@$(BIN)/mypy pipeline components evaluation metrics mnist models registry serving storage.py errors.py \
		parsing.py surroundings.py local_runner.py kubeflow_runner.py benchmarks tools

setup: ## Make .venv with everything for development
	@scripts/setup.sh dev

# The locks hold versions and hashes, and no address: whoever installs them uses their own registry.
COMPILE = $$uv pip compile --quiet --generate-hashes --strip-extras --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(ARGS)
TODAY := --universal --python-version 3.11 --override overrides.in
PY310 := --python-version 3.10 --python-platform x86_64-manylinux2014
# Of what gpu.in needs, only what the base does not have.
NVIDIA = awk '/^[^ ]/ { keep = /^(\#|nvidia-)/ } keep'

lock: ## Make the locks of both stacks from requirements/*.in again (ARGS=--upgrade for the newest versions)
	@set -e; uv=$$(scripts/setup.sh uv); cd requirements; \
	$(COMPILE) $(TODAY) base.in -o base.txt; \
	$(COMPILE) $(TODAY) dev.in -c base.txt -o dev.txt; \
	$(COMPILE) $(PY310) py310/base.in -o py310/base.txt; \
	$(COMPILE) $(PY310) dev.in -c py310/base.txt -o py310/dev.txt; \
	$(COMPILE) $(TODAY) gpu.in | $(NVIDIA) > gpu.txt.new; \
	$(COMPILE) $(PY310) py310/gpu.in | $(NVIDIA) > py310/gpu.txt.new; \
	for lock in gpu.txt py310/gpu.txt; do grep -q '^nvidia-' $$lock.new; mv $$lock.new $$lock; done; \
	$(COMPILE) $(PY310) uv.in -o uv.txt

IMAGE ?= mnist-gan-tfx
VARIANT ?= cpu
TARGET ?= default
DOCKER ?= docker
RELEASE = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
COMMIT = $(shell git rev-parse HEAD)$(shell git diff --quiet HEAD || echo -dirty)

image: ## Build the container image (VARIANT=gpu, TARGET=beam, IMAGE=name, DOCKER=podman)
	@$(DOCKER) build --file deploy/Dockerfile --target $(TARGET) --build-arg VARIANT=$(VARIANT) \
		--build-arg VERSION=$(RELEASE) --build-arg COMMIT=$(COMMIT) \
		--tag $(IMAGE):$(RELEASE)-$(VARIANT)$(if $(filter-out default,$(TARGET)),-$(TARGET)) \
		$(ARGS) .

clean: ## Remove .venv and caches; keeps outputs/
	@rm -rf .venv .tools .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -type d -not -path './outputs/*' -prune -exec rm -rf {} +
