PYTHON ?= python3
BIN = .venv/bin
RUN = runs/demo
TRAIN = JAX_PLATFORMS=cpu $(BIN)/python scripts/train.py

.PHONY: demo test lint clean

# Trains the three demo models (or goes on where a killed run stopped), then proofreads 96 pages.
demo: .venv/ready
	$(TRAIN) --config configs/demo/tokenizer.py --workdir $(RUN)/tokenizer
	JAX_PLATFORMS=cpu $(BIN)/python scripts/encode.py --tokenizer $(RUN)/tokenizer --out $(RUN)/codes --num-pages 4000
	$(TRAIN) --config configs/demo/planner.py --workdir $(RUN)/planner
	$(TRAIN) --config configs/demo/decoder.py --workdir $(RUN)/decoder
	JAX_PLATFORMS=cpu $(BIN)/python scripts/evaluate.py --bundle $(RUN) --benchmark pages --n 96 --out $(RUN)/pages

test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf runs .pytest_cache .ruff_cache
