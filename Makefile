# The commands of the cookbook. Each one sets up what it needs in .venv; only Python 3.11+ is asked for.
export NO_MKDOCS_2_WARNING = 1 # Material's notice about another program
.DEFAULT_GOAL := help
.PHONY: help site book speed shots test lint recipes serve gpu gpu-packages clean
.DELETE_ON_ERROR:

PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)) python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/installed
PYODIDE := build/pyodide/fetched
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

site: recipes $(PYODIDE) ## Execute what changed and build the site in site/
	$(BIN)/python -m mkdocs build --strict
	@echo "The site is in site/; make serve shows it."

test: $(READY) $(PYODIDE) ## Run all tests, the recipes among them
	$(BIN)/python -m pytest --nbmake

lint: $(READY) ## Check the style of all code
	$(BIN)/ruff check .

recipes: $(READY) ## Execute each recipe that changed, once; keep the notebooks in build/recipes/
	$(BIN)/python -m pytest --nbmake -v recipes

book: site ## Print the site's chapters as build/book.pdf, with Chromium
	$(BIN)/python -m cookbook_lib.publishing.book

speed: site ## Measure how soon each page shows something, in Chromium
	$(BIN)/python -m cookbook_lib.publishing.speed

shots: site ## Take pictures of every page, in three widths and both schemes
	$(BIN)/python -m cookbook_lib.publishing.shots

serve: recipes $(PYODIDE) ## Show the site on this machine and rebuild it on changes
	$(BIN)/python -m mkdocs serve

# Of the Pythons at hand the one whose PyTorch sees a GPU; nothing is installed.
GPU_PYTHON ?= $(firstword $(foreach p,$(PYTHON) python3 $(BIN)/python,\
	$(shell $(p) -c 'import torch; torch.cuda.is_available() and print("$(p)")' 2>/dev/null)) $(PYTHON))

# What the measurements import beside PyTorch: plain Python, which runs wherever it is copied to. As
# pinned, it comes before what a machine has of it, so that all machines measure the same.
GPU_IMPORTS := einops jaxtyping wadler_lindig
GPU_PACKAGES := build/gpu-packages
GPU_PATH = $(GPU_PACKAGES)$${PYTHONPATH:+:$$PYTHONPATH}

gpu: ## Add to docs/data what this GPU has not been measured for yet, in ten minutes at most
	PYTHONPATH=$(GPU_PATH) $(GPU_PYTHON) -m cookbook_lib.benchmarks.gpu $(ARGS)

gpu-packages: $(READY) ## Fetch what make gpu needs beside PyTorch, for a copy of this folder
	rm -rf $(GPU_PACKAGES)
	$(INSTALL) --target $(GPU_PACKAGES) --no-deps --no-compile $(GPU_IMPORTS)

clean: ## Delete everything that was built, .venv included
	rm -rf $(VENV) build site .pytest_cache .ruff_cache .hypothesis
	find cookbook_lib recipes tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Python for the planner's page: 14 MB of npm's package, checked and kept.
$(PYODIDE): cookbook_lib/publishing/planner/runtime.py | $(READY)
	$(BIN)/python -m cookbook_lib.publishing.planner.runtime
	@touch $@

# mamba-ssm is built without its kernels: the tests compare with its references in plain PyTorch.
# `installing` exists while pip runs: if it is there at the start, the last set-up was interrupted.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, $(PYTHON) is %d.%d: make PYTHON=/path/to/python3" % sys.version_info[:2])'
	@if [ -e $(VENV)/installing ]; then rm -rf $(VENV); fi
	$(PYTHON) -m venv $(VENV)
	@rm -f $(READY) && touch $(VENV)/installing
	$(INSTALL) --editable '.[dev]'
	MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE $(INSTALL) --no-build-isolation --no-deps mamba-ssm
	@mv $(VENV)/installing $(READY)
