"""Reads everything that manifests name in the store and holds it to their digests: what is missing, what was altered.

Each find is told to the rule that makes it, so that the workflow's own command makes it again, and nothing else.

    python scripts/store_check.py --store store
    python scripts/store_check.py --store store results --kinds clips negatives

exit codes: 0 all is whole; 1 something is missing or altered, a line each
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from regdpo.config import command_line
from regdpo.core import damage, errors
from regdpo.core.errors import UserError
from regdpo.core.progress import track
from regdpo.core.store import RULES, Store


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command_line.store_option(parser)
    parser.add_argument("results", nargs="*", type=Path, help="folders of results; default: those that the store knows")
    parser.add_argument("--kinds", nargs="+", choices=sorted(RULES), default=sorted(RULES), help="default: all")
    args = parser.parse_args()
    store = Store(args.store)
    folders = args.results or [results for _, results in store.users() if results.is_dir()]
    if not folders:
        raise UserError(f"{store.root}: no folder of results is known to use it; name one")
    found, outputs = 0, set[Path]()
    for results in folders:
        for manifest, relative, reason in bad(store, results, set(args.kinds)):
            print(f"{store.root / relative}: {reason} ({manifest})")
            damage.tell(results, store, relative)
            found, outputs = found + 1, outputs | {manifest}
    if found:
        print(f"{found} artefacts; the workflow's command, given again, makes them anew, by {len(outputs)} jobs")
    return int(bool(found))


def bad(store: Store, results: Path, kinds: set[str]) -> Iterator[tuple[Path, str, str]]:
    """Manifest, artefact, and what is wrong with it.

    Raises:
        UserError: there are no manifests.
    """
    manifests = list(damage.named(results))
    if not manifests:
        raise UserError(f"{results}: no manifest there names anything in a store")
    for manifest, names in track(manifests, "manifests", len(manifests)):
        for relative, sha256 in sorted(names.items()):
            if relative.partition("/")[0] in kinds and (reason := store.wrong(relative, sha256)):
                yield manifest, relative, reason


if __name__ == "__main__":
    errors.run(main)
