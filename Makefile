# Every target is a task of bootstrap.py, which needs nothing but python3.
PYTHON ?= python3
SEEDS ?= 1000
SEED ?= 0
SECONDS ?= 60
ARGS ?=
RUN = @$(PYTHON) bootstrap.py

.DEFAULT_GOAL := help
.PHONY: help demo lint fix unit test sim native fuzz bench docs fresh services lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

demo: ## a whole mesh on recorded sensor output: no root, no network
	$(RUN) demo $(ARGS)
lint: ## formatting, types, import contracts, house rules, spelling
	$(RUN) lint
fix: ## repair what can be repaired by machine
	$(RUN) fix
unit: ## the fast, pure tests
	$(RUN) unit $(ARGS)
test: ## every test
	$(RUN) test $(ARGS)
sim: ## the seeded simulator: make sim SEEDS=1000 SEED=0
	$(RUN) sim --seeds $(SEEDS) --seed $(SEED) $(ARGS)
native: ## the same compiled, for very many seeds (needs a C compiler and setuptools)
	$(RUN) native --seeds $(SEEDS) --seed $(SEED) $(ARGS)
fuzz: ## mutated real traffic into every decoder: make fuzz SECONDS=60 SEED=0
	$(RUN) fuzz --seconds $(SECONDS) --seed $(SEED)
bench: ## benchmarks as ratios, written to docs/benchmarks.md
	$(RUN) bench
docs: ## build the documentation into build/site
	$(RUN) docs
services: ## the systemd units in a booted machine (needs root)
	$(RUN) services
fresh: ## both README commands in a minimal Debian root (needs root)
	$(RUN) fresh
lock: ## renew the hashed lock files (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements/run.in -o requirements/run.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements/dev.in -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header -c requirements/dev.txt requirements/tpm.in -o requirements/tpm.txt
clean: ## remove everything that is not source
	$(RUN) clean
