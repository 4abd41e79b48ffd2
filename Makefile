# Everything a person or a machine does with this checkout. `make` alone lists it.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup venv demo test test-full lint format protos mutants bench requirements clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: packages, .venv, Docker engine, demo images
	@$(PYTHON) scripts/setup.py

venv:
	@$(PYTHON) scripts/setup.py python

demo: setup ## start the service on this machine and run the demo on it
	@$(BIN)/python examples/demo.py

test: setup ## all tests but the long repetitions (some 25 minutes)
	@$(BIN)/python -m pytest -m "not full"

test-full: setup ## all tests, long repetitions too
	@$(BIN)/python -m pytest

lint: venv ## style, types, the direction of imports, generated code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python scripts/protos.py --check

format: venv ## put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

protos: venv ## compile the .proto files
	@$(BIN)/python scripts/protos.py

mutants: venv ## break the rules one by one and see that tests notice (ARGS="--rules", ARGS="--rule A5.unset")
	@$(BIN)/python scripts/mutants.py $(ARGS)

bench: setup ## measure against Redis, gRPC and Docker alone (some 8 minutes)
	@$(BIN)/python benchmarks/finding_jobs.py
	@$(BIN)/python benchmarks/telling_observers.py
	@$(BIN)/python benchmarks/creating_large_jobs.py
	@$(BIN)/python benchmarks/keeping_schedules.py
	@$(BIN)/python benchmarks/submit_to_running.py

COMPILE = CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/pip-compile --quiet --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras --allow-unsafe $(UPGRADE)

requirements: venv ## pin the requirements anew (UPGRADE=--upgrade takes newer versions); needs the network
	@$(COMPILE) -o requirements.txt requirements.in
	@$(COMPILE) -o requirements-dev.txt requirements-dev.in

clean: ## remove .venv, caches and built files (images and the engine stay)
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
