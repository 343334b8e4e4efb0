# The verbs of the project. `.venv` is made when a verb first needs it, and again when what it holds
# changes; `make clean` removes it.

PYTHON ?= python3
PROMPT ?= a rocket flying left
PYTEST_ARGS ?=
DOCS_S ?= 3600

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LIGHT := $(VENV)/.snapdragon
FULL := $(VENV)/.dev
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadscope \
	--no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check fmt bench docs wheel clean
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ': .*## ' '/^[a-z-]+: .*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo '  PYTHON=python3.12 names the Python (3.11 or newer) that .venv is made from'

demo: $(LIGHT) ## compile the model for Snapdragon, verify it, make demo.mp4 and demo.png
	$(BIN)/mvsdk export --target snapdragon --out sticker.mvbundle --overwrite
	$(BIN)/mvsdk generate "$(PROMPT)" --bundle sticker.mvbundle -o demo.mp4 --overwrite
	$(BIN)/mvsdk generate "$(PROMPT)" --bundle sticker.mvbundle -o demo.png --overwrite

test: $(FULL) ## run the tests; PYTEST_ARGS='-m "not slow"' runs fewer
	$(PYTEST) -m "not exhaustive" $(PYTEST_ARGS)

test-all: $(FULL) ## run the exhaustive ones too, as CI does
	$(PYTEST) $(PYTEST_ARGS)

check: $(FULL) ## format, lint and types, as CI wants them
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

fmt: $(FULL) ## format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(FULL) ## run every command of README and docs as printed, the long ones too
	MVSDK_DOCS_S=$(DOCS_S) $(BIN)/python -m pytest tests/docs $(PYTEST_ARGS)

wheel: $(VENV)/.made ## build wheels and source archives of both distributions into dist/
	$(PIP) install --quiet --constraint constraints.txt build hatchling
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m build --no-isolation --outdir dist export

bench: $(LIGHT) ## measure the runtime on this machine
	$(BIN)/python benchmarks/host.py

clean: ## remove .venv, caches and the demo's clips; bundles stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache demo.mp4 demo.png
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp per extra, named for it.
$(LIGHT) $(FULL): $(VENV)/.%: pyproject.toml export/pyproject.toml constraints.txt $(VENV)/.made
	$(PIP) install --quiet --constraint constraints.txt hatchling editables setuptools
	$(PIP) install --constraint constraints.txt --no-build-isolation \
		--editable . --editable './export[$*]'
	@$(BIN)/python -c '$(FIND_LIBATOMIC)' 2>/dev/null || echo $(NO_LIBATOMIC) >&2
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo $(OLD_PYTHON) >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); echo $(NO_VENV) >&2; exit 1; }
	@touch $@

OLD_PYTHON := "error: '$(PYTHON)' is not Python 3.11 or newer;" \
	"name one that is: make PYTHON=python3.12"
NO_VENV := "error: '$(PYTHON)' cannot make a virtual environment;" \
	"on Debian and Ubuntu: apt-get install python3-venv"

# Qualcomm's libraries want it, and no wheel brings it.
FIND_LIBATOMIC := import ctypes, sys; sys.platform == "linux" and ctypes.CDLL("libatomic.so.1")
NO_LIBATOMIC := "warning: libatomic.so.1 is missing, and Qualcomm's libraries need it;" \
	"on Debian and Ubuntu: apt-get install libatomic1"
