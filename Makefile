# make demo   sets up and scans the sample transcripts
# make test   sets up and runs the tests
# make lint   style, types, and that generated documents are up to date
# make bench  quality and latency figures into benchmarks/results (README.md in that folder)
# make model  trains the embedded model anew (training/README.md)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs bench model clean

demo: $(VENV)/.core
	$(BIN)/refusal-guard scan examples/transcripts.jsonl --out demo.jsonl --report demo.html
	@echo "Every row with its verdict: demo.jsonl. The refused ones as a page: demo.html"

test: $(VENV)/.test
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n 3
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python benchmarks/tables.py --check

docs: $(VENV)/.core
	$(BIN)/python benchmarks/tables.py

bench: $(VENV)/.test
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/tables.py

model: $(VENV)/.training
	$(BIN)/python -m training $(REFUSAL_GUARD_DATA)

clean:
	rm -rf $(VENV) .nox .coverage* demo.jsonl demo.html

# pip learnt dependency groups in 25.1; the venv's own may be older.
$(VENV)/.core: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'refusal-guard needs Python 3.11 or newer: make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check "pip>=25.1"
	$(BIN)/pip install -q -e .
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(BIN)/pip install -q --group test
	touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/pip install -q --group lint
	touch $@

$(VENV)/.training: $(VENV)/.core
	$(BIN)/pip install -q --group training
	touch $@
