# The two commands of a fresh machine are `sudo make demo` and `sudo make test`; `make help` lists the others.
#
# Steps that make something run as the user who called sudo (tools/as-owner), what needs root runs as root and hands back
# what it left (tools/as-root). Each step leaves a stamp in .venv/ and is repeated when one of its files has changed.

PYTHON ?= python3
VENV := .venv
IN_VENV := $(VENV)/bin
AS_OWNER := tools/as-owner
AS_ROOT := MAKE_GOAL=$@ tools/as-root

SOURCES := $(shell find csrc bpf -name '*.[ch]' -o -name '*.def') csrc/ffi/build.py setup.py

# Arguments for pytest:  sudo make test ARGS='tests/udp -k echo'
ARGS ?=
# How long each fuzz target runs.
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-unit test-asan fuzz bench lint lint-python lint-types lint-imports lint-c wheel clean
.PHONY: packages-python packages-build packages-network packages-fuzz

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

demo: packages-network $(VENV)/.built ## an unmodified client talks to a Python UDP server on AF_XDP (needs root)
	@$(AS_ROOT) $(IN_VENV)/python examples/demo.py

test: packages-network $(VENV)/.built $(VENV)/.requires-testing ## run all tests (needs root)
	@$(AS_ROOT) $(IN_VENV)/python -m pytest $(ARGS)

test-unit: $(VENV)/.built $(VENV)/.requires-testing ## run the tests that need no privilege
	@$(IN_VENV)/python -m pytest -m 'not root' $(ARGS)

lint: lint-python lint-types lint-imports lint-c ## check style, types, import rules and C formatting

lint-python: $(VENV)/.requires-dev
	@$(IN_VENV)/ruff check
	@$(IN_VENV)/ruff format --check

lint-types: $(VENV)/.requires-dev
	@$(IN_VENV)/mypy

lint-imports: $(VENV)/.requires-dev
	@$(IN_VENV)/lint-imports

lint-c: $(VENV)/.requires-dev
	@find csrc bpf examples -name '*.[ch]' | xargs -r $(IN_VENV)/clang-format --dry-run -Werror
	@$(IN_VENV)/python tools/c_includes.py

wheel: $(VENV)/.built ## build the wheel into dist/
	@$(AS_OWNER) rm -rf build/lib.* build/bdist.*
	@$(AS_OWNER) $(IN_VENV)/python -m pip wheel -q --no-deps --no-build-isolation -w dist .
	@ls -l dist/*.whl

clean: ## remove all that the commands above made
	rm -rf .venv build dist *.egg-info xdpstack/include xdpstack/device/bpf
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	find xdpstack -name '*.so' -exec rm -f {} +

packages-%:
	@tools/system-packages $*

$(VENV)/.made: | packages-python
	@$(AS_OWNER) $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("xdpstack needs Python 3.11 or newer")'
	@echo "making a virtual environment in $(VENV)"
	@$(AS_OWNER) $(PYTHON) -m venv --clear $(VENV)
	@$(AS_OWNER) touch $@

$(VENV)/.requires-%: pyproject.toml tools/requirements.py | $(VENV)/.made
	@echo "installing Python packages: $*"
	@$(AS_OWNER) $(IN_VENV)/python -m pip install -q $$($(IN_VENV)/python tools/requirements.py $(filter-out runtime,$*))
	@$(AS_OWNER) touch $@

# Editable: Python files are used where they are. Entry points and metadata are written anew when their files change.
$(VENV)/.installed: pyproject.toml | packages-build $(VENV)/.requires-runtime
	@echo "building xdpstack"
	@$(AS_OWNER) $(IN_VENV)/python -m pip install -q --no-deps --no-build-isolation -e .
	@$(AS_OWNER) touch $@

$(VENV)/.built: $(SOURCES) $(VENV)/.installed
	@$(AS_OWNER) $(IN_VENV)/python setup.py -q build_ext --inplace
	@$(AS_OWNER) touch $@
