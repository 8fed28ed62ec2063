# Everything a contributor types. `make demo` and `make test` are enough for a newcomer; each makes what it needs.
SHELL := /bin/sh
PY := .venv/bin/python
BIN := .venv/bin
SOURCES := core server client cli protos tests bench examples setup.py
JOBS ?= 2

PYX := $(wildcard core/*.pyx) $(shell find server -name '*.pyx')

.PHONY: help build demo test check lint types stubs arrows protos tidy fix bench wheel smoke soak simulate powercut mutants fuzz leaks asan trace annotate baseline clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

build/.environment: pyproject.toml setup.py tools/bootstrap.sh
	@mkdir -p build
	tools/bootstrap.sh
	@touch $@

build/.protos: build/.environment $(shell find protos -name '*.proto')
	$(PY) setup.py --quiet build_protos
	@touch $@

build/.core: build/.environment $(PYX) $(wildcard core/*.pxd)
	$(PY) setup.py --quiet build_ext --inplace
	@touch $@

build: build/.environment build/.protos build/.core  ## environment, generated code, compiled core

demo: build  ## a small shop on real processes: crashes, drains, a control plane that dies
	$(PY) -m examples.shop.demo

test: build  ## unit, property, simulation and integration tests
	$(BIN)/pytest -n $(JOBS) --dist worksteal -q

check: lint types stubs arrows protos tidy  ## everything that reads the code without running it

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint core server

types: build
	$(BIN)/mypy -p trunkline.core -p trunkline.api -p trunkline.server -p trunkline.client -p trunkline.cli
	MYPYPATH=build/pkgroot:tests $(BIN)/mypy bench examples tests

stubs: build
	$(PY) -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist tests/repository/stubtest-allow.txt $(subst /,.,$(PYX:%.pyx=trunkline/%))

arrows: build
	PYTHONPATH=build/pkgroot $(BIN)/lint-imports

protos: build
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/released.json

tidy: build
	$(BIN)/pytest -q tests/repository

fix: build  ## what can be mended by a machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(PY) tools/settings_page.py
	$(PY) tools/errors_table.py
	$(PY) tools/policy_fields.py

bench: build  ## every benchmark beside its peers; installs the peers it can
	bench/peers/install.sh
	$(PY) -m bench run --json build/bench.json
	$(PY) -m bench report build/bench.json

wheel: build  ## build the sdist, and the wheel from it
	tools/wheel.sh

smoke: wheel  ## install the wheel in a clean environment; run the smoke tests and the demo against it
	tools/smoke.sh

soak: build  ## half an hour of half load with churn: does anything grow?
	$(PY) -m bench.load.soak

simulate: build  ## thousands of simulated histories
	SIMULATION_SEEDS=5000 $(BIN)/pytest -n $(JOBS) -q tests/simulation

powercut: build  ## cut a server's power under load, again and again (root, loop devices)
	POWER_CUTS=10 $(BIN)/pytest -q --log-cli-level=INFO tests/faults/test_power_cut.py

mutants: build  ## named faults patched into shipped code; each must be caught
	cd tests && ../$(PY) -m simulation.mutants

fuzz: build  ## longer fuzzing: the wire scanner against protobuf, and what peers send over HTTP/2 (needs clang)
	FUZZ_CASES=2000000 $(BIN)/pytest -q tests/property/test_wire.py
	tools/fuzz.sh 1200

leaks: build  ## tests of the native transport, which fail when anything is alive at their end
	tools/leaks.sh

asan: build  ## tests of what core does with peers' bytes, under gcc's sanitizers
	tools/asan.sh

trace:  ## core with line tracing, for coverage; `make build` afterwards goes back
	TRUNKLINE_CYTHON_TRACE=1 $(PY) setup.py build_ext --inplace --force && rm -f build/.core

annotate:  ## build/cython/**/*.html: where Cython talks to Python
	TRUNKLINE_CYTHON_ANNOTATE=1 $(PY) setup.py build_ext --inplace --force

baseline: build  ## at a release: the contract that later changes must not break
	$(BIN)/buf build -o protos/released.json

clean:
	rm -rf build dist .venv *.egg-info $(PYX:.pyx=*.so) $(PYX:.pyx=.c)
	find protos \( -name '*_pb2*.py' -o -name '*_pb2*.pyi' \) -delete
