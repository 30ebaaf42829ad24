# The two commands of a fresh machine are `sudo make demo` and `sudo make test`; `make help` lists the others.
#
# Steps that make something run as the user who called sudo (tools/as-owner), what needs root runs as root and hands back
# what it left (tools/as-root). Each step leaves a stamp in .venv/ and is repeated when one of its files has changed.

PYTHON ?= python3
VENV := .venv
IN_VENV := $(VENV)/bin
AS_OWNER := tools/as-owner
AS_ROOT = MAKE_GOAL=$@ tools/as-root

SOURCES := $(shell find csrc bpf -name '*.[ch]' -o -name '*.def') csrc/ffi/build.py setup.py
C_FILES := find csrc bpf examples benchmarks xdpstack/bench -name '*.[ch]'
PYTHON_SOURCES := $(shell find xdpstack -name '*.py*' -not -path '*/__pycache__/*')

ASAN := $(CURDIR)/build/asan
ASAN_ENV = env PYTHONPATH=$(ASAN)/lib:$(CURDIR) PYTHONSAFEPATH=1 PYTHONMALLOC=malloc \
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so.6)" UBSAN_OPTIONS=print_stacktrace=1:log_path=$(ASAN)/report

CLANG ?= clang
FUZZERS := $(patsubst csrc/fuzz/%.c,build/fuzz/%,$(wildcard csrc/fuzz/*.c))
# All C but that which is about Python, and the fuzz targets and tests with their own main().
FUZZED := $(filter-out csrc/ffi/% csrc/views/% csrc/fuzz/% csrc/tests/%,$(filter csrc/%.c,$(SOURCES)))
FUZZ_OBJECTS := $(FUZZED:%.c=build/fuzz/%.o)
FUZZ_FLAGS := -std=gnu17 -O1 -g -fno-omit-frame-pointer -fno-strict-aliasing -fno-sanitize-recover=undefined \
	-fsanitize=address,undefined -D_GNU_SOURCE -DXS_DEBUG=1 -I. -Icsrc

# What the tests need; of the benchmark they test the pictures and the peers too.
SUITE := $(VENV)/.requires-testing $(VENV)/.requires-bench

# Arguments for pytest, and for the benchmark:  sudo make test ARGS='tests/udp -k echo'
ARGS ?=
# How long each fuzz target runs.
FUZZ_SECONDS ?= 60
# How many times `make soak` opens a stack.
SOAK_ROUNDS ?= 1000
# The NICs of `make test-nic`, all if none is named, and the kernel and QEMU of its guest if not those that are pinned.
MODELS ?=
KERNEL ?=
QEMU ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-unit test-asan test-leaks test-nic fuzz soak bench bench-instructions bench-peers lint format wheel clean
.PHONY: lint-python lint-types lint-imports lint-c
.PHONY: packages-python packages-build packages-network packages-peers packages-fuzz

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

demo: packages-network $(VENV)/.built ## an unmodified client talks to a Python UDP server on AF_XDP (needs root)
	@$(AS_ROOT) $(IN_VENV)/python examples/demo.py

test: packages-network packages-peers $(VENV)/.built $(SUITE) ## run all tests (needs root)
	@$(AS_ROOT) $(IN_VENV)/python -m pytest $(ARGS)

test-unit: $(VENV)/.built $(SUITE) ## run the tests that need no privilege
	@$(IN_VENV)/python -m pytest -m 'not root' $(ARGS)

# The extension and all that tests it, with the address and the undefined-behaviour sanitizer. Reports go to files: a test may
# have captured or ended the process that wrote one. Python's own memory comes from malloc, so that it is watched as well. The
# sanitizer looks for C++'s throw as it starts: where libraries that the plots use come later, it aborts at their first one.
# Its allocator takes more rounds of opening and closing until it has what it needs.
test-asan: packages-network $(ASAN)/.built ## run all tests on a build with sanitizers (needs root)
	@rm -f $(ASAN)/report.*
	@$(AS_ROOT) $(ASAN_ENV) XDPSTACK_SOAK_ROUNDS=120 ASAN_OPTIONS=detect_leaks=0:log_path=$(ASAN)/report \
		$(IN_VENV)/python -m pytest -p no:faulthandler $(ARGS); status=$$?; \
	cat $(ASAN)/report.* 2>/dev/null && status=1; exit $$status

# Python ends with much memory in use, which the sanitizer calls leaked. Ours is what C of ours asked malloc for: #1 of the
# stack. No more than three frames are kept, or the stack of each allocation would cost more than the tests.
test-leaks: packages-network $(ASAN)/.built ## run all tests and list the C memory that nobody freed (needs root)
	@rm -f $(ASAN)/report.*
	@$(AS_ROOT) $(ASAN_ENV) ASAN_OPTIONS=malloc_context_size=3:log_path=$(ASAN)/report LSAN_OPTIONS=exitcode=0 \
		$(IN_VENV)/python -m pytest -p no:faulthandler $(ARGS); status=$$?; \
	ls $(ASAN)/report.* >/dev/null && awk -v RS= -v ORS='\n\n' '/#1 [^\n]*csrc\// { print; leaks = 1 } END { exit leaks }' \
		$(ASAN)/report.* || status=1; exit $$status

$(ASAN)/.built: $(SOURCES) $(PYTHON_SOURCES) $(VENV)/.built $(SUITE)
	@echo "building with sanitizers"
	@$(AS_OWNER) rm -rf $(ASAN)/lib
	@$(AS_OWNER) env XDPSTACK_SANITIZE=address,undefined $(IN_VENV)/python setup.py -q \
		build --build-base $(ASAN) --build-lib $(ASAN)/lib
	@$(ASAN_ENV) ASAN_OPTIONS=detect_leaks=0 $(IN_VENV)/python -c \
		'from xdpstack.native import _native; assert "/asan/" in _native.__file__, _native.__file__'
	@$(AS_OWNER) touch $@

# In a guest, which needs neither root nor KVM: tools/nic_lab/. Its packages are fetched into a cache; nothing is installed.
test-nic: packages-network $(VENV)/.built $(SUITE) ## run tests on emulated NICs: MODELS='igb vmxnet3', or all
	@$(AS_OWNER) $(IN_VENV)/python -m tools.nic_lab $(if $(KERNEL),--kernel $(KERNEL)) $(if $(QEMU),--qemu $(QEMU)) \
		$(MODELS) --pytest $(ARGS)

fuzz: packages-fuzz $(FUZZERS) ## run each fuzz target for FUZZ_SECONDS (60)
	@for fuzzer in $(FUZZERS); do \
		name=$${fuzzer##*/}; $(AS_OWNER) mkdir -p build/fuzz/corpus/$$name; \
		seeds=csrc/fuzz/corpus/$$name; [ -d $$seeds ] || seeds=; \
		echo "$$name: $(FUZZ_SECONDS) s"; \
		$(AS_OWNER) $$fuzzer -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1 -verbosity=0 \
			-artifact_prefix=build/fuzz/$$name- build/fuzz/corpus/$$name $$seeds || exit 1; \
	done

$(FUZZERS): build/fuzz/%: build/fuzz/csrc/fuzz/%.o $(FUZZ_OBJECTS)
	@$(AS_OWNER) $(CLANG) $(FUZZ_FLAGS) -fsanitize=fuzzer $^ -o $@ -lbpf -lpthread

build/fuzz/%.o: %.c | packages-build packages-fuzz
	@$(AS_OWNER) mkdir -p $(@D)
	@$(AS_OWNER) $(CLANG) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -MMD -c $< -o $@

-include $(wildcard build/fuzz/csrc/*.d build/fuzz/csrc/*/*.d)

soak: packages-network $(VENV)/.built $(SUITE) ## open and close a stack SOAK_ROUNDS (1000) times: nothing is left (needs root)
	@XDPSTACK_SOAK_ROUNDS=$(SOAK_ROUNDS) $(AS_ROOT) $(IN_VENV)/python -m pytest -rP tests/paths/test_soak.py $(ARGS)

bench: packages-network $(VENV)/.built $(VENV)/.requires-bench ## compare with a plain ring loop, DPDK, kernel sockets, scapy (needs root)
	@$(AS_ROOT) $(IN_VENV)/python -m xdpstack bench $(ARGS)

# In a guest of the NIC lab whose clock counts instructions. The results are in build/instructions.json.
bench-instructions: packages-network $(VENV)/.built $(SUITE) ## count kernel and user instructions a packet, in an emulated machine
	@$(AS_OWNER) $(IN_VENV)/python -m tools.nic_lab instructions --seconds 3600 --keep build -- \
		$(IN_VENV)/python -m xdpstack bench --instruction-clock --json /nic-lab/instructions.json \
		$(or $(ARGS),tx forward rx echo --only rings --only xdpstack --seconds 0.5 --settle 0.2)

bench-peers: packages-peers $(VENV)/.requires-bench ## install what the benchmark compares with: DPDK, scapy, valgrind (needs root)

lint: lint-python lint-types lint-imports lint-c ## check style, types, import rules and C formatting

format: $(VENV)/.requires-dev ## lay Python and C out as lint wants it
	@$(IN_VENV)/ruff check -q --fix --exit-zero
	@$(IN_VENV)/ruff format -q
	@$(C_FILES) | xargs -r $(IN_VENV)/clang-format -i

lint-python: $(VENV)/.requires-dev
	@$(IN_VENV)/ruff check
	@$(IN_VENV)/ruff format --check

lint-types: $(VENV)/.requires-dev
	@$(IN_VENV)/mypy

lint-imports: $(VENV)/.requires-dev
	@$(IN_VENV)/lint-imports

lint-c: $(VENV)/.requires-dev
	@$(C_FILES) | xargs -r $(IN_VENV)/clang-format --dry-run -Werror
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

packages-python:
	@tools/system-packages python
packages-build:
	@tools/system-packages python build
packages-network:
	@tools/system-packages python build network
packages-peers: packages-build
	@tools/system-packages peers
packages-fuzz: packages-build
	@tools/system-packages fuzz

$(VENV)/.made: | packages-python
	@$(AS_OWNER) $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("xdpstack needs Python 3.11 or newer")'
	@echo "making a virtual environment in $(VENV)"
	@$(AS_OWNER) $(PYTHON) -m venv --clear --upgrade-deps $(VENV)
	@$(AS_OWNER) touch $@

$(VENV)/.requires-%: pyproject.toml tools/requirements.py | $(VENV)/.made
	@echo "installing Python packages: $*"
	@$(AS_OWNER) $(IN_VENV)/python -m pip install -q $$($(IN_VENV)/python tools/requirements.py $(filter-out runtime,$*))
	@$(AS_OWNER) touch $@

# Editable: Python files are used where they are. Entry points and metadata are written anew when their files change.
$(VENV)/.installed: pyproject.toml | packages-build $(VENV)/.requires-runtime
	@echo "building xdpstack"
	@$(AS_OWNER) env PYTHONWARNINGS=ignore $(IN_VENV)/python -m pip install -q --no-deps --no-build-isolation -e .
	@$(AS_OWNER) touch $@

$(VENV)/.built: $(SOURCES) $(VENV)/.installed
	@$(AS_OWNER) $(IN_VENV)/python setup.py -q build_ext --inplace
	@$(AS_OWNER) touch $@
