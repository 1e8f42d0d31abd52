# make quickstart   finds what was planted in small models; prints the answer and the report's path
# make real         what a few hundred documents changed in SmolLM2 (needs the package index)
# make test         lint, unit tests and the smoke workflow
# make bench        speed on the CPU (results/benchmarks.csv); bench-gpu: on a GPU, within 8 minutes
# make validate     the long scientific checks (config/recovery.yaml)
# make docs         the documentation as a site (build/site); needs the package index
# make reproduce-paper   the published study (config/paper.yaml)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CORES ?= all
RUN := $(BIN)/python -m snakemake --cores $(CORES) --quiet host reason rules

.PHONY: docs quickstart real explain-quickstart test bench bench-gpu validate reproduce-paper lock

quickstart: explain-quickstart $(READY)
	@$(RUN)
	@$(BIN)/python -m workflow_scripts.tools.print_answer results/quickstart

explain-quickstart:
	@echo "Trains three small models on text made here, and finds what two of them were taught"
	@echo "differently by comparing what happens inside: about seven minutes on two cores, 4 GB of"
	@echo "memory, no download but Python packages. After an interrupt, the same command goes on."

real: $(READY)
	@$(BIN)/python -m workflow_scripts.tools.prepare_real results/real/inputs
	@$(RUN) --configfile config/real.yaml
	@$(BIN)/python -m workflow_scripts.tools.print_answer results/real
	@$(BIN)/python -m tests.workflow.check_real results/real

test: $(READY)
	@$(BIN)/python -m pytest -m "not slow" -n logical --maxprocesses 4 \
		--dist loadfile --no-loadscope-reorder

# The allocator as the workflow sets it for every step (rules/common.smk).
bench: export MALLOC_MMAP_MAX_ = 0
bench: export MALLOC_TRIM_THRESHOLD_ = 1073741824
bench: export MALLOC_TOP_PAD_ = 67108864
bench: $(READY)
	@for file in tests/benchmarks/bench_*.py; do \
		$(BIN)/python -m tests.benchmarks.$$(basename $$file .py) || exit 1; \
	done

bench-gpu: export BENCH_DEVICE ?= cuda
bench-gpu: $(READY)
	@$(BIN)/python -m tests.benchmarks.gpu

validate: $(READY)
	@$(RUN) --configfile config/recovery.yaml
	@$(BIN)/python -m tests.workflow.check_recovery results/recovery
	@$(BIN)/python -m tests.workflow.tabulate_score_power results/recovery
	@$(BIN)/python -m tests.crosscoder.tabulate_recovery
	@$(BIN)/python -m pytest -m slow
	@$(BIN)/python -m tests.comparison.families.tabulate_families
	@$(BIN)/python -m tests.autointerp.real_server

reproduce-paper: $(READY)
	@$(RUN) --configfile config/paper.yaml -- reproduce_paper

docs: $(READY)
	@$(BIN)/python -m workflow_scripts.tools.build_site

$(READY): requirements.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "diffscope needs Python 3.11 or newer; name one with make PYTHON=...")'
	@echo "Setting up $(VENV) (once) ..."
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $@

# Write the lock, and the environments made from it, from the packages installed in .venv.
lock:
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | LC_ALL=C sort -f > requirements.lock
	@$(BIN)/python -m workflow_scripts.tools.write_environments
