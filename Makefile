# The five words: install, test, lint, check, bench. Everything else is a longer version of one of them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SERVE_STAMP := $(VENV)/.served
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
CPU := src/rerankd/engine/native/cpu
KERNELS := $(CPU)/librerankd_kernels.so

# A container's setting would have every server that a test starts compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help serve kernels thorough native integration mutants coverage wheel install test lint check bench faults fuzz load soak clients typescript playground docs pages site train

help: ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(SERVE_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(STAMP): $(SERVE_STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[reference,redis,postgres,eval]' --group dev
	@touch $@

install: $(STAMP) ## Make the virtual environment with everything that tests and lint need

$(KERNELS): build_kernels.py $(wildcard $(CPU)/csrc/*)
	$(PYTHON) build_kernels.py

kernels: $(KERNELS) ## Compile the C kernels again, where a source is newer

wheel: $(STAMP) ## The wheel and the source distribution, into dist/
	rm -rf dist
	$(BIN)/hatchling build -d dist
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist dist/*-linux_*.whl && rm dist/*-linux_*.whl

serve: $(SERVE_STAMP) ## Serve the embedded model on http://127.0.0.1:8000
	$(BIN)/rerankd serve

test: $(STAMP) ## Run the tests that need neither a GPU nor much time
	$(PYTEST)

thorough: $(STAMP) ## All of what make test has a part of: every layout in every format, the first pages, larger counts
	$(PYTEST) -m thorough

native: $(STAMP) ## The C kernels under sanitizers and for AArch64, and an installed wheel without a compiler
	$(BIN)/python -m pytest tests/unit/engine/native/cpu tests/wheel -m compiled

INTEGRATION := tests/cluster tests/deploy tests/faults/test_rolling_restart.py tests/faults/test_replicas.py \
	tests/unit/observe/test_tracing.py

integration: $(STAMP) ## nginx, Redis, Prometheus and Ray around the server, as a table of asked and measured
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[ray,redis,otel]'
	$(BIN)/python -m pytest $(INTEGRATION) -m 'slow or not slow' --timeout 0

mutants: $(STAMP) $(KERNELS) ## Changes of rules, limits and kernels, each of which a test has to notice
	$(BIN)/python -m tests.meta.mutants

coverage: $(STAMP) $(KERNELS) ## Which lines of the package its unit tests run, by file and by folder
	$(PYTEST) tests/unit tests/contract --cov --cov-report term:skip-covered --cov-report json:out/coverage.json
	$(BIN)/python -m tests.meta.coverage_by_folder out/coverage.json

lint: $(STAMP) ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test ## What has to pass before a commit

bench: $(STAMP) $(KERNELS) ## The engines side by side on the two workloads
	$(BIN)/python benchmarks/engine.py

faults: $(STAMP) ## Every fault and attack, the slow ones too, as a table
	$(BIN)/python -m pytest tests/faults tests/security tests/golden tests/unit/prompt \
		tests/unit/cache/test_key.py tests/contract/test_same_scores.py -m 'not gpu'

fuzz: $(STAMP) ## Ten minutes of coverage-guided fuzzing of each reader of foreign bytes
	$(BIN)/pip install --quiet --disable-pip-version-check --group fuzz
	for target in body dialect settings checkpoint http; do \
		$(BIN)/python -m tests.fuzz $$target --seconds 600 --corpus out/fuzz/$$target || exit 1; done

load: $(STAMP) ## The server under load, as a table
	$(BIN)/python -m pytest tests/load -m load

soak: $(STAMP) ## One hour of mixed traffic and mishaps
	$(BIN)/python -m pytest tests/load -m soak --timeout 0

clients: $(STAMP) ## Every client of the world against a running server, as a table
	$(BIN)/python -m pytest tests/clients -m clients --timeout 0

typescript: ## The TypeScript client: install, check, test, build
	cd clients/typescript && npm ci --no-audit --no-fund && npm run check && npm test && npm run build

playground: $(STAMP) ## The playground in Chromium
	$(BIN)/python -m pytest tests/playground -m slow

docs: $(STAMP) ## Write the generated pages and tables again
	$(BIN)/python docs/generate.py

pages: $(STAMP) ## Run every block of every page of the documentation
	$(BIN)/python -m pytest tests/docs -m ''

site: $(STAMP) ## The documentation as a site, in site/
	$(BIN)/pip install --quiet --disable-pip-version-check --group docs
	$(BIN)/mkdocs build --strict

train: $(STAMP) ## Train the embedded model from the training data
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train]'
	$(BIN)/python -m training all --data ../shared/data --work out/work --run out/run --out out/tiny
