# Commands for a fresh machine: `make demo`, `make test`, `make sweep` and `make docs`. What they install into, in this order:
#   PYTHON=/path/to/python        that interpreter
#   an active environment         of venv (VIRTUAL_ENV) or conda (CONDA_PREFIX)
#   otherwise                     .venv, made with python3

PYTHON ?= $(firstword $(wildcard $(VIRTUAL_ENV:%=%/bin/python) $(CONDA_PREFIX:%=%/bin/python)) .venv/bin/python)

# One stamp for every interpreter and extra: a second run installs nothing, a changed requirement or an environment
# made anew (pyvenv.cfg) does.
stamps := .make/$(subst /,_,$(PYTHON))
environment := $(if $(filter .venv/bin/python,$(PYTHON)),.venv/pyvenv.cfg,$(wildcard $(dir $(PYTHON))../pyvenv.cfg))

.DELETE_ON_ERROR:
.PHONY: demo test sweep lint docs clean

demo: $(stamps)/demo
	$(PYTHON) -m hf_detr.cli demo

# Two processes of one thread each: faster than one process of two threads, and the same on every machine.
test: $(stamps)/test lint
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal -m "not sweep"
	@echo "make sweep runs the second stage: what holds for one preset of each architecture is tested for all the others."

# The second stage of the tests, for changes to the network, the losses or the converters.
sweep: $(stamps)/test
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal -m sweep

lint: $(stamps)/test
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -c "from importlinter.cli import lint_imports_command as run; run()"
	$(PYTHON) -m mypy

# The site: the pages of docs/ and a reference made of docstrings.
docs: $(stamps)/docs
	$(PYTHON) -m mkdocs build

clean:
	rm -rf .venv .make .site

$(stamps)/%: setup.cfg pyproject.toml $(environment)
	$(PYTHON) -m pip install --editable ".[$*]"
	@mkdir -p $(@D)
	@touch $@

.venv/pyvenv.cfg:
	python3 -m venv .venv
