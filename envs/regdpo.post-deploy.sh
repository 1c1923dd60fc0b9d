#!/usr/bin/env bash
# Snakemake runs this in the environment it has made of regdpo.yaml; by hand, activate it and run this in the checkout.
# torch is PyPI's build for CUDA, by hash, unless TORCH_INDEX_URL names another index.
set -euo pipefail
locks="${REGDPO_SCRIPTS:-scripts}/../envs"
python -m pip install --require-hashes --no-deps -r "$locks/regdpo.lock"
if [ -n "${TORCH_INDEX_URL:-}" ]; then
  python -m pip install --index-url "$TORCH_INDEX_URL" -r "$locks/torch.lock"
else
  python -m pip install --require-hashes --no-deps -r "$locks/cuda.lock"
fi
