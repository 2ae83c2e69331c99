# Accuracy and cost of the sidecar beside Zeus and CodeCarbon. These two have an environment of their own. About fifteen
# minutes.
BENCH_VENV := tests/benchmarks/.bench-venv

.PHONY: bench-sidecar
bench-sidecar: setup $(BENCH_VENV)/.ready
	@cd tests/benchmarks && PYTHONPATH=.. ../../$(BIN)/python bench_sidecar.py --peers .bench-venv/bin/python

$(BENCH_VENV)/.ready: tests/benchmarks/bench_sidecar_peers.txt
	@$(PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/pip install -qq -r $<
	@touch $@

# Time of fitting and predicting, compared with its limits. About fifteen minutes on two cores.
.PHONY: bench-fit
bench-fit: setup
	@OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_fit.py

# Time of choosing a batch among 10,000 rows, compared with its limit. Half a minute on two cores.
.PHONY: bench-frugal
bench-frugal: setup
	@OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_frugal.py

# Step time of the trainer beside a plain PyTorch loop. Seven minutes on two cores. Freed memory stays with the process.
# Otherwise malloc gives pages back and takes them again, about 10,000 per step or none, and this decides who is faster.
KEEP_MEMORY := MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=67108864
.PHONY: bench-trainer
bench-trainer: setup
	@$(KEEP_MEMORY) OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_trainer.py

# Time and memory of the workflow for grids of 100 to 50,000 rows, and of the tables of 10,000 runs. About ten minutes.
.PHONY: bench-workflow
bench-workflow: setup
	@PYTHONPATH=tests/helpers $(BIN)/python -m tests.benchmarks.bench_workflow

# Time of `make rebuild` for the reference campaign, on an invented table of the same size. About two minutes on two cores.
.PHONY: bench-rebuild
bench-rebuild: setup
	@$(BIN)/python -m tests.benchmarks.bench_rebuild

# Time and size of the report of a large campaign, on an invented one. Half a minute on two cores.
.PHONY: bench-report
bench-report: setup
	@$(BIN)/python tests/benchmarks/bench_report.py

# Time and memory that each rule asks Slurm for, and what it takes, on the test cluster. Five minutes. The table of
# profiles/README.md comes from here.
.PHONY: bench-resources
bench-resources: setup
	@PYTHONPATH=tests/helpers $(BIN)/python -m tests.benchmarks.bench_resources
