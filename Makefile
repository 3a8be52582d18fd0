# make setup, make demo and make test each do all of their own set-up: Python 3.11 or later, git and make will do.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
SERIAL := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NO_ALBUMENTATIONS_UPDATE=1
# The real data sets, where they lie beside the checkout; tests that need them skip where they do not.
DATA := $(or $(AUGFORGE_DATA),$(abspath $(wildcard ../shared/data)))

# A folder as people have it: JPEG files of mixed sizes, five a class to learn from and others to test on.
DEMO = $(SERIAL) $(BIN)/augforge
AS_THEY_ARE := --with nothing --include-real --per-class 0 --encoding jpeg

.PHONY: setup demo test fuzz docs lint wheel-test gpu clean

setup: $(READY)

# uv installs in seconds what pip does in minutes; where it cannot be had, pip does it.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	($(BIN)/python -m pip install --quiet uv && \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[fast,scenes,dev]') || \
	  $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fast,scenes,dev]'
	touch $(READY)

demo: $(READY)
	rm -rf demo
	$(DEMO) synth scenes --max-per-class 5 $(AS_THEY_ARE) --out demo/pictures/train
	$(DEMO) synth scenes --max-per-class 10 --split test $(AS_THEY_ARE) --out demo/pictures/test
	$(DEMO) synth demo/pictures --per-class 50 --out demo/more
	$(DEMO) predict demo/pictures demo/pictures/test/*/*-r00000.jpg --top 1
	@echo "where each picture came from is in demo/more/manifest.jsonl"

test: $(READY) lint
	$(SERIAL) AUGFORGE_DATA="$(DATA)" $(BIN)/python -m pytest -n 2 --dist worksteal

# Every reader of files is given damaged ones for an hour (SECONDS=60: a minute each), as is the command line random
# options; and what takes too long for every run of the tests.
fuzz: $(READY)
	$(SERIAL) AUGFORGE_FUZZ=$(or $(SECONDS),3600) $(BIN)/python -m pytest -n 2 tests/test_fuzz.py tests/cli/test_random_commands.py \
	  tests/cli/test_ray.py

# mypy does not see mapped folders, so the types are checked on a tree that looks as the installed package does.
lint: $(READY)
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	rm -rf build/types && mkdir -p build/types/augforge
	ln -s $(CURDIR)/augforge/* $(CURDIR)/generators $(CURDIR)/cli build/types/augforge
	cd build/types && MYPYPATH=. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p augforge

# The guides as a site in build/site; a warning or a broken link is an error.
docs: $(READY)
	rm -rf build/types && mkdir -p build/types/augforge
	ln -s $(CURDIR)/augforge/* $(CURDIR)/generators $(CURDIR)/cli build/types/augforge
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "the site is in build/site/index.html"

# The wheel, built and installed in a clean environment, passes the same tests.
wheel-test: $(READY)
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel > build/wheel/log
	$(PYTHON) -m venv build/wheel/venv
	$(BIN)/uv pip install --quiet --python build/wheel/venv/bin/python --constraint constraints.txt \
	  "$$(ls build/wheel/*.whl)[fast,scenes,dev]"
	$(SERIAL) AUGFORGE_DATA="$(DATA)" build/wheel/venv/bin/pytest -n 2 --dist worksteal

# What wants a CUDA device: the marked tests and all that is measured, in nine minutes at most (docs/gpu.md). Python, torch
# and the driver are taken as found: this needs no `make setup`. SMOKE=1 runs the same on the CPU with tiny sizes.
GPU_PYTHON := $(or $(and $(SMOKE),$(wildcard $(BIN)/python)),$(PYTHON))
gpu:
	$(GPU_PYTHON) benchmarks/gpu/run.py $(if $(SMOKE),--smoke) $(if $(WHEELS),--wheels "$(WHEELS)") \
	  $(if $(PARTS),--parts "$(PARTS)")

clean:
	rm -rf $(VENV) build demo
