# eventcsv. `make` alone tells what there is.

PYTHON   ?= python3
VENV     := .venv
BIN      := $(VENV)/bin
VERSIONS := 3.11 3.12 3.13
MINUTES  ?= 10
CSV      ?= data/input/input.csv
export CSV

.PHONY: help compact watch demo demo-hosts test test-all crash soak check format bench bench-full bench-check clean
.DEFAULT_GOAL := help

help:
	@echo 'make compact             fold the event log into $(CSV); the shipped sample when there is none'
	@echo 'make compact CSV=path    the same for any other CSV'
	@echo 'make watch CSV=path      the same, again and again, at most a second behind'
	@echo 'make demo                a run of 446 POs that is killed hard, resumes and finishes'
	@echo 'make demo-hosts          the same on two hosts that share a log in PostgreSQL, one of which is killed hard'
	@echo 'make test                run every test'
	@echo 'make test-all            the same under each Python from 3.11 on that is found here'
	@echo 'make crash               the long part of the tests: kills, power cuts, damage; some of it needs root'
	@echo 'make soak MINUTES=10     work, kills and compactions for so long, with an eye on memory and open files'
	@echo 'make check               lint and types'
	@echo 'make bench               measure, in some minutes, and build benchmarks/README.md anew'
	@echo 'make bench-full          the same with more rounds and up to ten million events; needs 6 GB of disk'
	@echo 'make bench-check         see that nothing has become much slower, in half a minute'
	@echo 'make clean               remove what these made, the data aside'

# Installed once, and again when the dependencies change.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# What eventcsv is measured against.
$(VENV)/installed-bench: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

# The sample goes only to where nobody has a job yet: a log or a backup without its CSV is one that can be rebuilt.
.PHONY: sample
sample:
	@if test "$$CSV" = data/input/input.csv && ! test -e data/input; then \
	  mkdir -p data/input && cp -R data/sample/. data/input/ && echo 'The sample was copied to data/input.' >&2; fi

compact: $(VENV)/installed sample
	@$(BIN)/eventcsv compact "$$CSV"

watch: $(VENV)/installed sample
	@$(BIN)/eventcsv compact --watch "$$CSV"

demo: $(VENV)/installed
	@$(BIN)/python data/demo.py

demo-hosts: $(VENV)/installed-dev
	@$(BIN)/python data/demo_hosts.py

# Twice as many as there are cores: tests wait a lot, for a disk, for a lock, for another process.
WORKERS = $$((2 * $$(getconf _NPROCESSORS_ONLN)))

test: $(VENV)/installed-dev
	$(BIN)/pytest --numprocesses $(WORKERS)

# One environment for each; a version that pyenv has need not be on the PATH.
test-all:
	@for version in $(VERSIONS); do \
	  for python in python$$version $$(ls -d $$HOME/.pyenv/versions/$$version.*/bin/python3 2>/dev/null); do \
	    if $$python -c '' 2>/dev/null; then break; else python=; fi; done; \
	  if test -z "$$python"; then missing="$$missing $$version"; continue; fi; \
	  echo "Python $$version: $$($$python --version)"; \
	  $(MAKE) --no-print-directory test PYTHON=$$python VENV=.venv-$$version || exit 1; tried="$$tried $$version"; done; \
	echo "All tests pass under Python:$$tried. Not found, so not tried:$${missing:- none}."

crash: $(VENV)/installed-dev
	$(BIN)/pytest --numprocesses auto -m long

soak: $(VENV)/installed-dev
	$(BIN)/python tests/support/soak.py --minutes $(MINUTES)

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/bench.py

bench-full: $(VENV)/installed-bench
	$(BIN)/python benchmarks/bench.py --scale full

bench-check: $(VENV)/installed-dev
	$(BIN)/python benchmarks/check.py

clean:
	rm -rf $(VENV) .venv-* .bench-* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
