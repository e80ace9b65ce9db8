# Two commands on a fresh machine with Python 3.11+ and pip: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo demo-vllm test lint types format clean install

install: $(STAMP)

$(STAMP): pyproject.toml tools/install.sh
	PYTHON="$(PYTHON)" VENV="$(VENV)" sh tools/install.sh
	@touch $(STAMP)

demo: $(STAMP)  ## run the main job on the emulated engine and leave a report under outputs/
	$(BIN)/python -m raybench run scenarios/demo.yaml

demo-vllm: $(STAMP)  ## the same with the real engine: vLLM on the CPU with a tiny Llama made on the spot
	$(BIN)/python tools/tiny_llama.py outputs/tiny-llama
	$(BIN)/python -m raybench run scenarios/tiny-llama-cpu.yaml

test: $(STAMP)  ## everything, including the real vLLM engine where its CPU wheel can be had
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
