# `make` alone lists the targets. Each sets .venv up first; that takes a minute or
# two once and under a second afterwards.
#
# PYTHON=python3.12 chooses an interpreter. Otherwise .venv keeps the one it has, and
# a new .venv takes the first of these that is Python 3.11, 3.12 or 3.13.
PYTHONS = $(or $(PYTHON),.venv/bin/python python3 python3.13 python3.12 python3.11)
PRESET ?= quick
Q ?=

RUN = .venv/bin/python -m tools.run_notebooks $(if $(Q),--question $(Q))
BENCHMARKS = $(wildcard benchmarks/bench_$(firstword $(subst _, ,$(Q)))*.py)
FOLDER ?= build/pretraining
WORKERS ?= 2

.PHONY: help environment run test check notebooks ray sweep pretrain peers bench audit \
    publishing submission site

help:
	@echo "make run        execute the notebooks into build/ (PRESET=full, Q=q1_tbptt)"
	@echo "make test       run the tests"
	@echo "make check      lint the code and the notebooks"
	@echo "make notebooks  the published run: full preset, notebooks and results in place"
	@echo "make sweep      the same, its runs spread by Ray (RAY_ADDRESS=, default local)"
	@echo "make pretrain   question 4's denoiser on several workers (WORKERS=2, FOLDER=)"
	@echo "make bench      run the benchmarks (Q=q1_tbptt)"
	@echo "make audit      known vulnerabilities and licences of the pinned packages"
	@echo "make submission pack what is handed in into build/submission.zip (VIDEO_URL=)"
	@echo "make site       build the site into build/site/"

environment:
	@for python in $(PYTHONS); do \
	    if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	        2>/dev/null; then exec $$python tools/environment.py; fi; \
	done; \
	echo "error: Python 3.11, 3.12 or 3.13 is needed and none of these is one:" \
	    "$(PYTHONS). Name one with PYTHON=/path/to/python3" >&2; exit 1

run: environment
	@$(RUN) --preset $(PRESET)

notebooks: environment
	@$(RUN) --preset full --in-place

ray: environment
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	    -r requirements-sweep.txt -c constraints.txt

sweep: export RAY_ADDRESS ?= local
sweep: ray
	@$(RUN) --preset full --in-place

pretrain: ray
	@.venv/bin/python -m tools.pretrain --workers $(WORKERS) $(FOLDER)

test: environment
	@.venv/bin/python -m pytest -m "not notebook and not kills and not prepared and not publish"

check: environment
	@.venv/bin/python -m ruff check
	@.venv/bin/python -m ruff format --check

peers: environment
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	    -r requirements-bench.txt -c constraints.txt

bench: $(if $(Q),environment,peers)
	@set -e; for file in $(BENCHMARKS:benchmarks/%.py=%); do \
	    .venv/bin/python -m benchmarks.$$file; done
	@$(if $(Q),,.venv/bin/python -m benchmarks.report)

audit: environment
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	    -r requirements-audit.txt -c constraints.txt
	@.venv/bin/python -m tools.audit

publishing: environment
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	    -r requirements-publish.txt -c constraints.txt

submission: publishing
	@.venv/bin/python -m tools.submission

site: publishing
	@.venv/bin/python -m tools.site
