# make demo   build a small corpus, train on it, stop and resume; prints where each result lies
# make test   run the whole test suite
# make lint   ruff, mypy, and who may import whom
# Each creates .venv and installs into it first when that has not been done.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export COMPOSER_SUPPRESS_TIPS := 1

.PHONY: demo test lint clean

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "error: Python 3.10, 3.11 or 3.12 is needed; name one: make PYTHON=python3.11 ..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,test,llama,clean]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python -m training.demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean:
	rm -rf data runs $(VENV)
