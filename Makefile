# Two commands on a fresh machine: `make demo` and `make test`. What they install into, in this order:
#   PYTHON=/path/to/python        that interpreter
#   an active environment         of venv (VIRTUAL_ENV) or conda (CONDA_PREFIX)
#   otherwise                     .venv, made with python3

PYTHON ?= $(firstword $(wildcard $(VIRTUAL_ENV:%=%/bin/python) $(CONDA_PREFIX:%=%/bin/python)) .venv/bin/python)

# One stamp for every interpreter and extra: a second run installs nothing, a changed requirement or an environment
# made anew (pyvenv.cfg) does.
stamps := .make/$(subst /,_,$(PYTHON))
environment := $(if $(filter .venv/bin/python,$(PYTHON)),.venv/pyvenv.cfg,$(wildcard $(dir $(PYTHON))../pyvenv.cfg))

.DELETE_ON_ERROR:
.PHONY: demo test lint clean

demo: $(stamps)/demo
	$(PYTHON) -m hf_detr.cli demo

# Two processes of one thread each: faster than one process of two threads, and the same on every machine.
test: $(stamps)/test lint
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal

lint: $(stamps)/test
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check

clean:
	rm -rf .venv .make

$(stamps)/%: setup.cfg pyproject.toml $(environment)
	$(PYTHON) -m pip install --editable ".[$*]"
	@mkdir -p $(@D)
	@touch $@

.venv/pyvenv.cfg:
	python3 -m venv .venv
