# `make demo` and `make test` need nothing but Python 3.10 or newer: each makes .venv and installs what it runs.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo page test test-floors types clean

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

page: .venv/installed  ## search the demo's people in a browser, with the model that `make demo` trained last
	@ls runs/demo_srt-*/best.pt > /dev/null 2>&1 || $(MAKE) demo
	$(BIN)/python -m pip install --quiet -e '.[web]'
	best=$$(ls -t runs/demo_srt-*/best.pt | head -1) && people=$${best%best.pt}people && \
		$(BIN)/reid-kit index $$people --checkpoint $$best --data demo && \
		$(BIN)/reid-kit serve $$people --checkpoint $$best

test: .venv/installed  ## the whole suite, and the style check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

types: .venv/installed  ## the public names as a strict type checker sees them
	$(BIN)/python -m mypy --strict --follow-imports=silent --cache-dir .mypy_cache tests/user_script.py

# the fast tests on the lowest versions that setup.cfg allows, torch apart, which is 3 GB of downloads: they go into a folder
# before the newest ones, with the torch that is there
test-floors: .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .floors -r tests/floors.txt
	PYTHONPATH=.floors $(BIN)/python -c 'import cv2, numpy; print("on numpy", numpy.__version__, "and OpenCV", cv2.__version__)'
	OMP_NUM_THREADS=1 PYTHONPATH=.floors $(BIN)/python -m pytest -n auto --maxprocesses 4 tests/data tests/model tests/evaluation tests/training tests/report tests/test_image.py

clean:
	rm -rf .venv .floors .mypy_cache build *.egg-info
