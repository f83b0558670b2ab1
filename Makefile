VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: demo test lint

# Installs into $(VENV), edits one picture with the embedded model, and prints where the results are.
demo: $(VENV)/installed
	$(BIN)/sdist edit assets/demo.png --source "a field of snow" --target "a red balloon in the snow" --output outputs/demo --overwrite

test: $(VENV)/installed
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	! git check-ignore -q sdist/__init__.py

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[test]"
	touch $@
