# 'make demo' and 'make test' do all the set-up on a fresh machine with Python 3.11 or later.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := td-ray-demo

.PHONY: demo test lint bench clean

demo: $(VENV)/ready
	$(BIN)/td-ray demo --output $(DEMO)

test: $(VENV)/ready
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/ready
	$(BIN)/td-ray bench all

# The environment; made anew when the project's requirements change.
$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[cluster,dev]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO)
