# Every target builds its own environment: only make, git and Python 3.11 or later must be installed.

VENV := .venv
BIN := $(VENV)/bin
PINS := $(wildcard constraints.txt)
ARGS ?=
# The versions of Python that are tested come first. All dependencies have wheels for 3.14 too.
PYTHONS := python3.13 python3.12 python3.11 python3.14 python3

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  ARGS is passed to the program: make demo ARGS=--stay, make test ARGS='-k drain'"

demo: $(VENV)/.demo  ## show how calls go on while instances and the registry fail
	@$(BIN)/adsum demo $(ARGS)

test: lint  ## run everything that a change must pass
	@echo "pytest …"
	@$(BIN)/pytest -q -n auto $(ARGS)

lint: $(VENV)/.dev  ## run ruff and mypy
	@echo "ruff …"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@echo "mypy …"
	@$(BIN)/mypy --no-error-summary

bench: $(VENV)/.dev  ## measure performance, compared with other systems
	@$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove the environment and all build results
	@rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The demo installs fewer packages than the tests, so it starts sooner.
$(VENV)/.demo: EXTRA := gateway
$(VENV)/.dev: EXTRA := dev

$(VENV)/.demo $(VENV)/.dev: pyproject.toml $(PINS)
	@python=; for each in $(PYTHONS); do \
	  if $$each -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then python=$$each; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "Adsum needs Python 3.11 or later with venv and pip, but none was found; on Debian: apt install python3-venv" >&2; \
	  exit 1; fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "creating an environment in $(VENV) with $$($$python --version) …"; \
	  $$python -m venv --clear $(VENV); fi
	@echo "installing Adsum and its dependencies …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $(if $(PINS),--constraint $(PINS)) --editable '.[$(EXTRA)]'
	@touch $@
