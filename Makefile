# Two commands for a fresh machine: `make demo` and `make test`. Both make the environment first.
VENV ?= .venv
CARPS_VENV ?= .venv-carps
BIN := $(VENV)/bin
PYTHON ?= python3
# A package index that does not answer for some minutes ends nothing.
export PIP_RETRIES ?= 10
export PIP_DEFAULT_TIMEOUT ?= 60
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint bench clusters katan carps clean
demo: $(VENV)/demo
	$(BIN)/llmhpo demo

# Many tests wait for processes and clocks: three at a time keep two cores busy.
test: $(VENV)/test
	$(BIN)/llmhpo model install smollm2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal --durations 20 -m "not gpu and not carps and not katan and not ray and not slurm"

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/test
	$(BIN)/python -m evals.bench_ask

# Ray and submitit: a minute or two on two cores.
clusters: $(VENV)/test
	$(PIP) --editable '.[ray,slurm]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "ray or slurm" tests/executors

# A server that nobody here wrote, beside the environment: it brings a web framework that nothing else here needs. A minute or two.
katan: $(VENV)/test
	$(BIN)/llmhpo model install smollm2
	$(PIP) --target .katan --no-deps llm-katan==0.22.0 fastapi==0.165.0 python-dotenv==1.2.4 starlette uvicorn h11 click anyio idna annotated-doc pyyaml opentelemetry-api
	LLMHPO_KATAN=.katan OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m katan tests/llm/test_llm_contract.py

# CARP-S in an environment of its own: it brings sixty packages that nothing else here needs.
carps:
	$(MAKE) VENV=$(CARPS_VENV) $(CARPS_VENV)/carps
	OMP_NUM_THREADS=1 $(CARPS_VENV)/bin/python -m pytest -m carps tests/carps

# torch comes first and pinned: asked for by another package, a CPU machine would get gigabytes of CUDA with it.
$(VENV)/torch: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "llmhpo needs Python >= 3.11; run: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	touch $@

$(VENV)/demo: $(VENV)/torch pyproject.toml
	$(PIP) --editable '.[local,demo]'
	touch $@

$(VENV)/test: $(VENV)/torch pyproject.toml
	$(PIP) --upgrade pip
	$(PIP) --editable '.[local,demo,pandas,bench,examples]' --group test --group lint
	touch $@

$(VENV)/carps: $(VENV)/torch pyproject.toml evals/carps-constraints.txt
	$(PIP) --upgrade pip
	$(PIP) --constraint evals/carps-constraints.txt --editable . carps ioh --group test
	touch $@

clean:
	rm -rf $(VENV) $(CARPS_VENV) llmhpo-demo .mypy_cache .ruff_cache .pytest_cache
