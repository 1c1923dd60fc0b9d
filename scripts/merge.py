"""Merge the manifests of shards, or the scores of models, into one."""

import argparse

from regdpo.core import errors, manifests
from regdpo.core.rows import Row

MODELS = {model.__name__: model for model in Row.__subclasses__()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", required=True, choices=sorted(MODELS), help="row model of the manifests")
    parser.add_argument("--out", required=True, help="the manifest to write")
    parser.add_argument("manifests", nargs="*", help="those to merge; none makes an empty one")
    args = parser.parse_args()
    manifests.merge(args.out, args.manifests, MODELS[args.rows])


if __name__ == "__main__":
    errors.run(main)
