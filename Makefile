# Every target builds its own environment: nothing but make, git and Python 3.11 or later is needed first.

VENV := .venv
BIN := $(VENV)/bin
PINS := $(wildcard constraints.txt)
ARGS ?=
# The versions that the tests run on come first; all that is needed has wheels for 3.14 too.
PYTHONS := python3.13 python3.12 python3.11 python3.14 python3

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  ARGS is passed on: make demo ARGS=--stay, make test ARGS='-k drain'"

demo: $(VENV)/.demo  ## watch a registry, services and a caller live through a bad day
	@$(BIN)/adsum demo $(ARGS)

test: lint  ## run everything that a change must pass
	@echo "pytest …"
	@$(BIN)/pytest -q -n auto $(ARGS)

lint: $(VENV)/.dev  ## ruff and mypy
	@echo "ruff …"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@echo "mypy …"
	@$(BIN)/mypy --no-error-summary

bench: $(VENV)/.dev  ## what it costs, beside its peers
	@$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove the environment and everything that was built
	@rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The demo needs less than the tests, and is there sooner.
$(VENV)/.demo: EXTRA := gateway
$(VENV)/.dev: EXTRA := dev

$(VENV)/.demo $(VENV)/.dev: pyproject.toml $(PINS)
	@python=; for each in $(PYTHONS); do \
	  if $$each -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then python=$$each; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "Adsum needs Python 3.11 or later with venv and pip, and found none; on Debian: apt install python3-venv" >&2; \
	  exit 1; fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "making an environment in $(VENV) with $$($$python --version) …"; \
	  $$python -m venv --clear $(VENV); fi
	@echo "installing Adsum and what it needs …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $(if $(PINS),--constraint $(PINS)) --editable '.[$(EXTRA)]'
	@touch $@
