# usx: every target sets up .venv by itself. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.usx-installed
ARGS ?=

PACKAGES := usx_common usx_compounding usx_xray usx_registration usx_completion usx_phantom usx_viewer usx_bringup
REQUIREMENTS := requirements/runtime.txt requirements/dev.txt
METADATA := $(foreach p,$(PACKAGES),src/$(p)/setup.py src/$(p)/package.xml) src/usx_runtime/pyproject.toml
SHARED := $(wildcard launch/* config/*)
DATA := $(wildcard ../shared/data)

ifneq ($(DATA),)
export USX_DATA ?= $(abspath $(DATA))
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench bench-gpu lint resolve clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo
	@echo "Pass options on with ARGS, e.g.: make demo ARGS=\"--seed 7 --out out/seed7\""

setup: $(STAMP)  ## create .venv with pinned requirements and the packages

$(VENV)/bin/python:
	@$(PYTHON) tools/check_machine.py
	@echo "== creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# Editable installs leave data_files out, so share/<package> (launch files, configuration) is put in place by itself.
$(STAMP): $(VENV)/bin/python $(REQUIREMENTS) $(METADATA) $(SHARED)
	@echo "== installing pinned requirements (the first time takes a few minutes)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -q -r requirements/build.txt
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -r requirements/dev.txt \
	  | grep -vE '^(Requirement already|Looking in|  )' || true
	@$(BIN)/python -c "import numba, rosbags, viser" \
	  || { echo "error: the requirements were not installed; see the messages above"; exit 1; }
	@echo "== installing the usx packages"
	@$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation \
	  $(foreach p,$(PACKAGES),-e src/$(p)) -e src/usx_runtime
	@for p in $(PACKAGES); do \
	  (cd src/$$p && $(CURDIR)/$(BIN)/python -W ignore setup.py -q install_data --install-dir $(CURDIR)/$(VENV)) \
	    >/dev/null 2>&1 || { echo "error: share/ of $$p was not installed"; exit 1; }; done
	@touch $@

demo: $(STAMP)  ## the whole chain on a digital phantom: out/demo/report.md
	@$(BIN)/usx run usx_bringup demo $(ARGS)

test: $(STAMP)  ## all tests
	@$(BIN)/python -m pytest -n 2 --dist loadscope $(ARGS)

bench: $(STAMP)  ## timings; also written to out/bench.json
	@$(BIN)/python -m benchmarks $(ARGS)

bench-gpu: $(STAMP)  ## the same with CUDA kernels
	@$(BIN)/python -m benchmarks --device cuda $(ARGS)

lint: $(STAMP)  ## ruff, and mypy on the ROS-free modules
	@$(BIN)/ruff check src tests benchmarks tools
	@$(BIN)/mypy $(foreach p,$(PACKAGES),src/$(p)/$(p)) --exclude '(/node\.py|/ros/)'

resolve: $(STAMP)  ## dry run: do the pins resolve for every supported Python?
	@$(BIN)/python tools/resolve_pins.py

clean:  ## remove what was made here, the virtual environment too
	rm -rf $(VENV) out build install log
