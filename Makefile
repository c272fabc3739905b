# `make demo` and `make test` need nothing but Python 3.10 or newer: each makes .venv and installs what it runs.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test clean

.venv/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is older than 3.10; run make PYTHON=python3.12 with the one you have"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing (about 7 GB on Linux, some minutes) ..."
	$(BIN)/python -m pip install --quiet -e '.[test]'
	@touch $@

demo: .venv/installed  ## render the demo data, train and test on it
	$(BIN)/python tools/make_demo.py
	$(BIN)/python tools/train.py --config configs/demo_srt.yaml TRAIN.OUTPUT runs/demo_srt-$$(date +%Y%m%d-%H%M%S)

test: .venv/installed  ## the whole suite, and the style check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

clean:
	rm -rf .venv build *.egg-info
