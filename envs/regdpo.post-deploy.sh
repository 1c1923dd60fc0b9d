#!/usr/bin/env bash
# Snakemake runs this in the environment it has made of regdpo.yaml; by hand, activate it and run this in the checkout.
# torch is PyPI's build for CUDA, by hash, unless TORCH_INDEX_URL names another index.
set -euo pipefail
locks="${REGDPO_SCRIPTS:-scripts}/../envs"
install() { python -m pip install --require-hashes --no-deps --no-build-isolation --use-pep517 -r "$1"; }
install <(sed -n '/^setuptools==/,/# via/p' "$locks/regdpo.lock") # what comes as source is built with it
install "$locks/regdpo.lock"
if [ -n "${TORCH_INDEX_URL:-}" ]; then
  python "$locks/install_torch.py" # torch.lock
else
  install "$locks/cuda.lock"
fi
