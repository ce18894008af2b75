# `make` alone lists the targets. Each sets .venv up first; that takes a minute or
# two once and no time afterwards.
#
# PYTHON=python3.12 chooses an interpreter. Otherwise .venv keeps the one it has, and
# a new .venv takes the first of these that is Python 3.11, 3.12 or 3.13.
PYTHONS = $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
PRESET ?= quick
Q ?=

PIP = .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-input
RUN = .venv/bin/python -m tools.run_notebooks $(if $(Q),--question $(Q))

# The stamp of a finished installation names its folder and its Python. It goes if the
# folder has moved or another Python is asked for.
READY := $(shell \
    made="$$(pwd -P), $$(.venv/bin/python -V 2>/dev/null)"; \
    [ "$$(cat .venv/.ready 2>/dev/null)" = "$$made" ] && \
    { [ -z "$(PYTHON)" ] || [ "$$made" = "$$(pwd -P), $$($(PYTHON) -V)" ]; } || \
    rm -f .venv/.ready)

.PHONY: help run test check notebooks sweep bench audit submission site

help:
	@echo "make run        execute the notebooks into build/ (PRESET=full, Q=q1_tbptt)"
	@echo "make test       run the fast tests"
	@echo "make check      lint the code and the notebooks"
	@echo "make notebooks  the published run: full preset, notebooks and results in place"
	@echo "make sweep      the same, its runs spread by Ray (RAY_ADDRESS=, default local)"
	@echo "make bench      run the benchmarks, write benchmarks/README.md and publish their headlines"
	@echo "make audit      known vulnerabilities and licences of the pinned packages"
	@echo "make submission pack what is handed in into build/submission.zip (VIDEO_URL=)"
	@echo "make site       build the site into build/site/"

.venv/.ready: requirements.txt constraints.txt pyproject.toml
	@for python in $(PYTHONS); do \
	    if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	        2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "error: Python 3.11, 3.12 or 3.13 is needed and none of these is one:" \
	        "$(PYTHONS). Name one with PYTHON=/path/to/python3" >&2; exit 1; fi; \
	echo "Setting up .venv with $$($$found -V): about 110 packages, 2 GB, one to three" \
	    "minutes"; \
	$$found -m venv --clear .venv || { echo "error: $$found cannot create .venv; on" \
	    "Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(PIP) -e . -c constraints.txt
	@echo "$$(pwd -P), $$(.venv/bin/python -V)" > $@

# An extra of pyproject.toml, such as .venv/.dev.
.venv/.%: .venv/.ready
	@echo "Installing the packages of the extra $*"
	@$(PIP) -e ".[$*]" -c constraints.txt
	@touch $@

run: .venv/.ready
	@$(RUN) --preset $(PRESET)

notebooks: .venv/.ready
	@$(RUN) --preset full --in-place

sweep: export RAY_ADDRESS ?= local
sweep: .venv/.sweep
	@$(RUN) --preset full --in-place

test: .venv/.dev
	@.venv/bin/python -m pytest --numprocesses=2 --dist=loadfile

check: .venv/.dev
	@.venv/bin/python -m ruff check
	@.venv/bin/python -m ruff format --check

bench: export STARTED := $(shell date -u "+%Y-%m-%d %H:%M UTC")
bench: export CUDA_VISIBLE_DEVICES = -1
bench: .venv/.bench
	@for q in 1 2 3 4; do .venv/bin/python -m benchmarks.bench_q$$q || exit; done
	@.venv/bin/python -m benchmarks.report

audit: .venv/.audit
	@.venv/bin/python -m pip_audit --no-deps --disable-pip -r constraints.txt
	@.venv/bin/pip-licenses --order=license

submission: .venv/.site
	@.venv/bin/python -m tools.submission

site: .venv/.site
	@.venv/bin/python -m tools.site
