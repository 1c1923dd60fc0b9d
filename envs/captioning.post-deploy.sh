#!/usr/bin/env bash
# As regdpo.post-deploy.sh, with captioning.lock on top.
set -euo pipefail
locks="${REGDPO_SCRIPTS:-scripts}/../envs"
bash "$locks/regdpo.post-deploy.sh"
python -m pip install --require-hashes --no-deps -r "$locks/captioning.lock"
