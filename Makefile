# The two commands of the README are `make run` and `make test`; everything else is a part of them.
SHELL := /bin/bash
PYTHON ?= python3
# The build of torch: a CUDA one where an NVIDIA device is present, else the CPU one.
TORCH ?= $(if $(wildcard /dev/nvidia0 /dev/nvidiactl),cuda,cpu)
PIP := 26.3
VENV := .venv
BIN := $(VENV)/bin
LOCKS := workflow/envs/requirements.in workflow/envs/base.lock workflow/envs/torch-$(TORCH).lock
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup run test test-long lint format clean

setup: $(VENV)/.ready-$(TORCH)

$(VENV)/.ready-$(TORCH): $(LOCKS) pyproject.toml
	@echo "setup: installing the hashed locks with the $(TORCH) build of torch (one to two minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq pip==$(PIP)
	@$(BIN)/pip install -qq --require-hashes -r workflow/envs/requirements.in \
	  -c workflow/envs/base.lock -c workflow/envs/torch-$(TORCH).lock || { \
	  echo "setup: pip failed. If it found no torch for '$(TORCH)', give pip the index of that build" \
	       "(PIP_EXTRA_INDEX_URL) or say TORCH=cpu or TORCH=cuda."; exit 1; }
	@$(BIN)/pip install -qq --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.ready-* && touch $@

run: setup
	@$(BIN)/snakemake --profile profiles/local
	@$(BIN)/python scripts/show_headline.py

test: setup
	@$(BIN)/python -m pytest -m "not long"

test-long: setup
	@$(BIN)/python -m pytest -m long

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/snakefmt --check Snakefile rules workflow/Snakefile
	@$(BIN)/snakemake --lint

format: setup
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/snakefmt Snakefile rules workflow/Snakefile

clean:
	rm -rf $(VENV)

-include tests/benchmarks/bench.mk
