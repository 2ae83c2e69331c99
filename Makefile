# The README names two commands, `make run` and `make test`. The other targets are parts of them or separate tasks.
SHELL := /bin/bash
PYTHON ?= python3
PIP := 26.3
VENV := .venv
# The build of torch: cuda, cuda126 or cpu. A build that was set up before is kept. Otherwise the GPU of this machine
# decides. CUDA 13 needs compute capability 7.5 and driver 580 at least. Older GPUs and drivers get CUDA 12.6, unless the
# GPU is too new for it. A machine without a GPU gets the CPU build.
DEVICES ?= /dev/nvidia0 /dev/nvidiactl
BUILD_BY_GPU = $(shell nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader 2> /dev/null | \
  awk -F '[., ]+' '{ can = 10 * $$(NF - 1) + $$NF; if (can < 75 || ($$1 < 580 && can < 100)) old = 1 } \
  END { print old ? "cuda126" : "cuda" }')
BUILD_BEFORE = $(firstword $(patsubst $(VENV)/.ready-%,%,$(wildcard $(VENV)/.ready-cuda*)))
TORCH ?= $(or $(BUILD_BEFORE),$(if $(wildcard $(DEVICES)),$(BUILD_BY_GPU),cpu))
BIN := $(VENV)/bin
LOCKS := workflow/envs/requirements.in workflow/envs/base.lock workflow/envs/torch-$(TORCH).lock
# Texts are UTF-8 in every locale.
export PYTHONUTF8 := 1
# A user's setting may forbid Python to write bytecode. Then every start of Python would compile the library again.
export PYTHONDONTWRITEBYTECODE :=
# Settings for another Python. This one would not even start with them.
unexport PYTHONHOME PYTHONPLATLIBDIR

.PHONY: torch setup setup-bundle bundle run reference reference-data rebuild public test test-fast test-long lint format clean

# Which build `make setup` would install.
torch:
	@echo $(TORCH)

setup: $(VENV)/.ready-$(TORCH)

SITE = $$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')
# A user's own pip settings must not change what is installed, or where. Only their indexes and certificates are kept.
# PYTHONPATH is unset, because pip would count the packages in it as installed.
OWN = unset $${!PIP_@} PYTHONPATH PYTHONHOME && . $(VENV)/pip.env &&
INSTALL = $(OWN) $(BIN)/pip install -qq --require-hashes -r workflow/envs/requirements.in -c workflow/envs/base.lock -c

# Shells run the commands of the workflow. A path with a blank or with a special sign of the shell would break them.
PLAIN = if printf '%s' "$$PWD" | grep -q "[[:space:]{}\"'\$$\`&|;<>()*?\\\\\#!~]"; then echo "setup: this folder's path,\
 $$PWD, holds a blank or a sign that a shell reads; move the checkout to a path of plain letters"; exit 2; fi

# Every start of Python runs this line. It removes the library from sys.modules again, because only later it is known
# from which checkout the library is to come.
AT_START := import sys, jouleline.home; del sys.modules['jouleline.home'], sys.modules['jouleline']

$(VENV)/.ready-$(TORCH): $(LOCKS) pyproject.toml
	@$(PLAIN)
	@echo "setup: installing the hashed locks with the $(TORCH) build of torch (one to two minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@umask 077; $(BIN)/python workflow/envs/pip_settings.py > $(VENV)/pip.env
	@$(OWN) $(BIN)/pip install -qq pip==$(PIP) 2> $(VENV)/pip.log || { cat $(VENV)/pip.log; exit 1; }
	@$(INSTALL) workflow/envs/torch-$(TORCH).lock 2> $(VENV)/pip.log || { test $(TORCH) = cpu && \
	  grep -qE "No matching distribution|ResolutionImpossible" $(VENV)/pip.log && \
	  echo "setup: pip finds no CPU build of torch in its indexes; taking the CUDA build, which runs on a CPU too (3 GB)" && \
	  $(INSTALL) workflow/envs/torch-cuda.lock 2>> $(VENV)/pip.log; } || { cat $(VENV)/pip.log; \
	  echo "setup: pip failed, see above; where it needs an index of your site, set PIP_EXTRA_INDEX_URL"; exit 1; }
	@$(OWN) $(BIN)/pip install -qq --no-deps --no-build-isolation --editable .
	@echo "$(AT_START)" > "$(SITE)/jouleline_home.pth"
	@rm -f $(VENV)/.ready-* && touch $@

# Set up a machine that has no network but a Python with torch: take the packages of this Python, and put the wheels of
# `make bundle` over them.
setup-bundle: $(VENV)/.ready-bundle

$(VENV)/.ready-bundle: $(BUNDLE)/requirements.txt
	@$(PLAIN)
	@$(PYTHON) -m venv --without-pip --clear $(VENV)
	@$(PYTHON) -c 'import sys; [print(f"import site; site.addsitedir({p!r})") for p in sys.path if p.endswith("-packages")]' \
	  > "$(SITE)/there.pth"
	@realpath workflow > "$(SITE)/jouleline.pth"
	@echo "$(AT_START)" > "$(SITE)/jouleline_home.pth"
	@unset $${!PIP_@}; PIP_CONFIG_FILE=/dev/null $(PYTHON) -m pip --python $(BIN)/python install -qq --no-index \
	  --no-deps --require-hashes --find-links $(BUNDLE) -r $(BUNDLE)/requirements.txt
	@touch $@

$(BUNDLE)/requirements.txt:
	@echo "error: no bundle in '$(BUNDLE)'; give BUNDLE=DIR as make bundle filled it (docs/reference-campaign.md)"; exit 2

# Gather the wheels that a machine without a network lacks. THERE lists its packages (`pip list --format=freeze`).
THERE ?= workflow/envs/there.txt
bundle: setup
	@$(BIN)/python scripts/bundle_wheels.py --there $(THERE) --out $(BUNDLE)

# Measure a piece of the reference campaign in MINUTES. It continues from FROM, and is packed into TO.
# See docs/reference-campaign.md.
CAMPAIGN ?= h200
MINUTES ?= 9.5
reference: SINCE := $(shell date +%s)
reference: $(if $(BUNDLE),setup-bundle,setup)
	@PYTHONUNBUFFERED=1 $(BIN)/python scripts/measure_reference.py --campaign $(CAMPAIGN) --minutes $(MINUTES) \
	  --since $(SINCE) $(if $(FROM),--from $(FROM)) $(if $(TO),--to $(TO)) $(REFERENCE)

# Take a campaign that was measured elsewhere from FROM, and keep it as data in the checkout: its tables.
DATA ?= data/$(CAMPAIGN)
reference-data: setup
	@$(BIN)/python scripts/measure_reference.py --campaign $(CAMPAIGN) --minutes 0 --from $(FROM)
	@$(BIN)/snakemake --profile profiles/local --rerun-triggers mtime --config campaign=$(CAMPAIGN) partial=true -- tables
	@$(BIN)/python scripts/pack_data.py --results results/$(CAMPAIGN) --out $(DATA)

run: setup
	@$(BIN)/snakemake --profile profiles/local
	@$(BIN)/python scripts/show_headline.py
	@$(if $(wildcard data/h200/provenance.json),$(MAKE) -s rebuild CAMPAIGN=h200)

# Make the report of a campaign that was measured elsewhere, from its tables in DATA.
rebuild: setup
	@$(BIN)/snakemake --profile profiles/local --config campaign=$(CAMPAIGN) data=$(DATA)
	@$(BIN)/python scripts/show_headline.py --campaign $(CAMPAIGN)

# Fetch public measured tables (or read them from FROM), show their licences, and write a report of each into
# results/public.
public: setup
	@$(BIN)/python scripts/make_public.py $(if $(FROM),--data $(FROM))

# Tests run on several workers. Tests that depend on real time mostly sleep. They run after the others, so that no heavy
# test runs beside them.
WORKERS ?= 4
CLOCK_WORKERS ?= 8
CLOCK := tests/unit/measure/sidecar tests/unit/measure/meters
# The folders of tests that start agents, ranks or Snakemake. Single files and tests elsewhere are marked `slow`.
SLOW := tests/cuda tests/scripts tests/workflow
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
OTHERS = $(CLOCK:%=--ignore=%)

test: setup
	@status=0; $(PYTEST) -m "not long" $(OTHERS) || status=$$?; \
	$(PYTEST) -n $(CLOCK_WORKERS) -m "not long" $(CLOCK) || status=$$?; exit $$status

# The tests to run after each change. They start no agents, no ranks and no Snakemake.
test-fast: setup
	@$(PYTEST) -m "not long and not slow" $(OTHERS) $(SLOW:%=--ignore=%)

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
