# make serve   builds everything, trains the digits model and serves it
# make test    all that CI runs
# make build   stops after installing: the command is then .venv/bin/pyserve
# make bench   the benchmark (bench-peers: beside other servers); make wheel: a wheel in dist/; make help: the rest

PYTHON ?= python3
# Torch's CPU wheel is enough where no GPU is visible; TORCH=torch takes the registry's newest.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= $(shell nproc)
REPOSITORY ?= repository
export MAX_JOBS ?= $(JOBS)
# Debian's ccache stands before the compilers it speeds up.
export PATH := /usr/lib/ccache:$(PATH)

SOURCES := $(shell find csrc -name '*.cc' -o -name '*.h' -o -name 'sources.txt')
TORCH_DIR = $(shell $(BIN)/python -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])")
CMAKE := $(BIN)/cmake
CTEST := $(BIN)/ctest --output-on-failure --test-dir

.PHONY: help build serve test test-cpp test-python lint types format bench bench-gate bench-gate-core \
  bench-breakdown bench-peers build/micro wheel test-wheel stress clean

help:
	@sed -n 's/^# //p' Makefile | head -4
	@echo "make lint types format test-cpp test-python test-wheel bench-gate bench-breakdown stress clean"

$(VENV)/.torch: 
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet "$(TORCH)" "setuptools>=77" wheel ninja numpy "grpcio-tools>=1.66"
	@touch $@

# Editable: Python changes need no new install, C++ changes rebuild the extension.
$(VENV)/.installed: $(VENV)/.torch pyproject.toml setup.py $(SOURCES) $(wildcard pyserve/protos/*.proto)
	@echo "building the C++ core (two to four minutes the first time)"
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[zoo]"
	@touch $@

# The package is there already: this adds what its extras name.
$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/pip install --quiet "pyserve[test,lint]" "cmake<4"
	@touch $@

build: $(VENV)/.installed

$(REPOSITORY)/digits/1/model.pt: | $(VENV)/.installed
	$(BIN)/pyserve zoo build digits -o $(REPOSITORY)

serve: $(VENV)/.installed $(REPOSITORY)/digits/1/model.pt
	@$(BIN)/python examples/digits_curl.py
	$(BIN)/pyserve serve --model-repository $(REPOSITORY)

test: lint types test-cpp bench-gate-core test-python

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find csrc tests benchmarks -name '*.cc' -o -name '*.h' | xargs $(BIN)/clang-format --dry-run --Werror

types: $(VENV)/.tested
	$(BIN)/mypy

format: $(VENV)/.tested
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc tests benchmarks -name '*.cc' -o -name '*.h' | xargs $(BIN)/clang-format -i

# ThreadSanitizer for the lock-free parts and the races of the whole; AddressSanitizer and UBSan for all.
test-cpp: $(VENV)/.tested
	$(CMAKE) -S . -B build/thread -G Ninja -DPYSERVE_SANITIZE=thread -DPYSERVE_TORCH_DIR=$(TORCH_DIR)
	$(CMAKE) --build build/thread -j $(JOBS)
	$(CTEST) build/thread
	$(CMAKE) -S . -B build/address -G Ninja -DPYSERVE_SANITIZE=address -DPYSERVE_TORCH_DIR=$(TORCH_DIR)
	$(CMAKE) --build build/address -j $(JOBS)
	$(CTEST) build/address

# PYTEST_ARGS="-k name" narrows it down.
test-python: $(VENV)/.tested
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Minutes rather than seconds of the same races; SECONDS=600 for longer.
SECONDS ?= 120
stress: $(VENV)/.tested
	$(CMAKE) -S . -B build/stress -G Ninja -DPYSERVE_STRESS_SECONDS=$(SECONDS) -DPYSERVE_TORCH_DIR=$(TORCH_DIR)
	$(CMAKE) --build build/stress -j $(JOBS)
	$(CTEST) build/stress -R stress

bench: $(VENV)/.tested
	$(BIN)/python -m benchmarks.run

# Fails where the hot path takes more instructions than benchmarks/bounds.json allows;
# GATE_ARGS="--record" writes what is measured as the new bounds.
bench-gate: $(VENV)/.tested build/micro
	$(BIN)/python -m benchmarks.gate $(GATE_ARGS)

# Of that what no noise reaches and takes seconds: a part of `make test`.
bench-gate-core: $(VENV)/.tested build/micro
	$(BIN)/python -m benchmarks.gate --only operations

build/micro: $(VENV)/.tested
	$(CMAKE) -S . -B build/micro -G Ninja
	$(CMAKE) --build build/micro -j $(JOBS) --target operations

# Where one request of `tiny` goes: instructions by callgrind, time by perf.
bench-breakdown: $(VENV)/.tested
	$(BIN)/python -m benchmarks.breakdown

# Beside FastAPI, mosec, LitServe, TorchServe, Triton, Ray Serve, BentoML: PEERS_ARGS=--update-docs
bench-peers: $(VENV)/.tested
	$(BIN)/python -m benchmarks.peers $(PEERS_ARGS)

wheel: $(VENV)/.torch
	$(BIN)/pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .

# The wheel in an environment of its own, serving a model.
test-wheel: wheel $(VENV)/.installed
	$(PYTHON) -m venv build/wheel-env
	build/wheel-env/bin/pip install --quiet "$(TORCH)" numpy
	build/wheel-env/bin/pip install --quiet --force-reinstall --no-deps dist/pyserve-*.whl
	build/wheel-env/bin/pip install --quiet dist/pyserve-*.whl
	cd build && wheel-env/bin/python ../tests/wheel/check_wheel.py

clean:
	rm -rf $(VENV) build dist
