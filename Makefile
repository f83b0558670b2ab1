VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
OLDEST_PYTHON ?= python3.10
OLDEST = build/oldest
PYTEST = python -m pytest -n logical --maxprocesses 8 --dist loadscope  # one module's tests share its fixtures

.PHONY: demo test oldest lint reproduce

# Installs into $(VENV), edits one picture with the embedded model, and prints where the results are.
demo: $(VENV)/installed
	$(BIN)/sdist edit assets/demo.png --source "a field of snow" --target "a red balloon in the snow" --output outputs/demo --overwrite

test: $(VENV)/installed
	$(BIN)/$(PYTEST)

# The tests with the oldest Python and the oldest packages that setup.cfg allows: gigabytes, PyPI's torch of that time being CUDA's.
oldest:
	$(OLDEST_PYTHON) -m venv $(OLDEST)
	sed -nE 's/^    ([a-z-]+)>=/\1==/p' setup.cfg | sort -u > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip install -q -c $(OLDEST)/constraints.txt -e ".[test]"
	$(OLDEST)/bin/$(PYTEST)

# The tables of docs/results.md: edits where they are missing in runs/compare (hours on two cores), then all metrics.
reproduce: $(VENV)/installed
	$(BIN)/python experiments/compare_methods.py --work runs/compare --pairs 60
	$(BIN)/python experiments/paper_metrics.py --work runs/compare

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	! git check-ignore -q sdist/__init__.py

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[test]"
	touch $@
