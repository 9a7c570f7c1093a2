# Everything a person or CI does here; `make help` lists it.

PYTHON ?= python3
BIN := .venv/bin
DATA ?= var

.DEFAULT_GOAL := help
.PHONY: help up install test security faults install-dev test-servers lint sbom lock bench load soak \
  clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

up: install ## Start the whole service on this machine (Ctrl-C stops it)
	@$(BIN)/consulta up --data $(DATA)

install: .venv/embedded.done ## Create .venv with the locked dependencies

install-dev: .venv/dev.done ## The same, with what tests and checks need

test: install-dev ## Run the tests
	@scripts/install-browser
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

security: install-dev ## What docs/security.md names: its tests, injected instructions, timing of refusals
	@scripts/install-browser
	@$(BIN)/python scripts/security

faults: install-dev ## Kill, starve and confuse the whole service for half an hour; print what was lost
	@timeout --kill-after=60 30m $(BIN)/python -m pytest tests/faults -m faults -n 3 --maxschedchunk 1

test-servers: ## Build Ollama and FerretDB for the tests, once (needs a C++ compiler)
	@scripts/build-test-servers

lint: install-dev ## Style, types, the import contract, unsafe code, known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive core api rag_worker mailer consulta
	scripts/audit-dependencies

sbom: install-dev ## Write what is installed, as CycloneDX, to sbom.cdx.json
	@$(BIN)/python scripts/sbom --output sbom.cdx.json

bench: install-dev ## Memory of our processes, and what everything but the model adds
	$(BIN)/python -m benchmarks.overhead

load: install-dev ## An exam hour, 200 requests a second, 100,000 stored questions: half an hour
	$(BIN)/python -m benchmarks.exam_hour
	$(BIN)/python -m benchmarks.exam_hour --speed 20
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.big_store

soak: install-dev ## Work under random faults for half an hour, and see whether anything grows
	$(BIN)/python -m benchmarks.soak

lock: ## Choose the versions anew (needs uv)
	@for name in api worker mailer embedded dev; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --upgrade --extra $$name pyproject.toml \
	    --output-file requirements/$$name.txt || exit 1; \
	done

clean: ## Delete the environment (not the data)
	rm -rf .venv build *.egg-info

.venv/bin/python:
	@scripts/create-venv $(PYTHON)

.venv/embedded.done: requirements/embedded.txt pyproject.toml | .venv/bin/python
	@scripts/install-locked embedded
	@touch $@

.venv/dev.done: requirements/dev.txt requirements/embedded.txt pyproject.toml | .venv/bin/python
	@scripts/install-locked dev
	@touch $@ .venv/embedded.done
