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

INSTALL = $(BIN)/pip install -qq --require-hashes -r workflow/envs/requirements.in -c workflow/envs/base.lock -c

$(VENV)/.ready-$(TORCH): $(LOCKS) pyproject.toml
	@echo "setup: installing the hashed locks with the $(TORCH) build of torch (one to two minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq pip==$(PIP) 2> $(VENV)/pip.log || { cat $(VENV)/pip.log; exit 1; }
	@$(INSTALL) workflow/envs/torch-$(TORCH).lock 2> $(VENV)/pip.log || { test $(TORCH) = cpu && \
	  echo "setup: pip finds no CPU build of torch in its indexes; taking the CUDA build, which runs on a CPU too (3 GB)" && \
	  $(INSTALL) workflow/envs/torch-cuda.lock 2>> $(VENV)/pip.log; } || { cat $(VENV)/pip.log; \
	  echo "setup: pip failed, see above; where it needs an index of your site, set PIP_EXTRA_INDEX_URL"; exit 1; }
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
