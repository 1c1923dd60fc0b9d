#!/usr/bin/env bash
# As regdpo.post-deploy.sh, with vbench.lock on top.
set -euo pipefail
locks="${REGDPO_SCRIPTS:-scripts}/../envs"
bash "$locks/regdpo.post-deploy.sh"
install() { python -m pip install --require-hashes --no-deps --no-build-isolation --use-pep517 -r "$1"; }
install <(sed -n '/^setuptools==/,/# via/p' "$locks/vbench.lock") # openai-clip is built with it
install "$locks/vbench.lock"
