# The virtual environment is made when it is missing and brought up to date when pyproject.toml has changed; otherwise
# nothing here uses the network. A machine with GPUs picks its own build of torch:
#   make train TORCH_INDEX=https://download.pytorch.org/whl/cu128
PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export OMP_NUM_THREADS ?= 1

.PHONY: train test check bench

train: $(READY)
	$(BIN)/popcomm train rllib_configs/swarm.yaml

# Two processes share what needs no Ray, a file of tests in each; tests with Ray come after, in one with a Ray of its own.
test: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile -m "not system" --durations 20
	$(BIN)/pytest -m system --durations 20

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m popcomm.cluster.validate
	$(MAKE) test

bench: $(READY)
	$(BIN)/python -m popcomm.analysis.benchmarks

# torch goes first, so that the build asked for is the one that Ray and the rest find in place.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(BIN)/python -m pip install -q -e ".[dev,envs,vmas,lbforaging,rware,butterfly,optuna,privacy,traffic]"
	touch $@
