#!/usr/bin/env bash
# As regdpo.post-deploy.sh, with filters.lock on top.
set -euo pipefail
locks="${REGDPO_SCRIPTS:-scripts}/../envs"
bash "$locks/regdpo.post-deploy.sh"
python -m pip install --require-hashes --no-deps -r "$locks/filters.lock"
