# Hourbook: every target that a newcomer or a developer needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOME_DIR ?= hourbook-data
EVENTS ?= 10000000

.PHONY: help demo test endurance test-slurm check bench serve clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/run: requirements.txt pyproject.toml
	@echo "Setting up $(VENV) (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/dev: $(VENV)/run requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/bench: $(VENV)/run requirements-bench.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@

demo: $(VENV)/run ## close a month of the sample operator; results in demo/
	@$(BIN)/python -m hourbook.demo

test: $(VENV)/dev ## run the tests
	@$(BIN)/python -m pytest -n auto

endurance: $(VENV)/dev ## hundreds of kills, power cuts, bad disks and malformed events (30 min)
	@$(BIN)/python -m pytest -n 2 -m endurance --override-ini "addopts=-ra --strict-markers --import-mode=importlib"

test-slurm: $(VENV)/dev ## collect from a real Slurm that is installed and started for it (root; 2 to 5 min)
	@$(BIN)/python -m pytest tests/real_slurm -m slurm --override-ini "addopts=-ra --strict-markers --import-mode=importlib"

check: $(VENV)/dev ## lint, types, import rules, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n auto

bench: $(VENV)/bench ## measure against the peers: EVENTS=10000000 unless said otherwise
	$(BIN)/python -m benchmarks.close --events $(EVENTS)
	$(BIN)/python -m benchmarks.late --events $(EVENTS)
	$(BIN)/python -m benchmarks.ingest

serve: $(VENV)/run ## serve API and pages of ./hourbook-data on port 8000
	@$(BIN)/hourbook --home $(HOME_DIR) serve --port 8000

clean: ## remove environment, demo and caches
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache
