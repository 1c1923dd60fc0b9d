"""What is in a store, by who still needs it; with --delete what nobody needs goes.

Everything that a manifest of the results names stays, what a living training holds, and whatever is younger than
--older-than. What is kept to spare work (`remembered`), to go on from (`resumable`) or was made by a shard that is not
finished (`unfinished`) goes only if it is named with --also. Folders of results that have used the store are known to
it; name those of others, or of copies.

    python scripts/store_gc.py --store store
    python scripts/store_gc.py --store store OTHER/results --delete --yes
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

from regdpo.config import command_line
from regdpo.core import errors
from regdpo.core.errors import UserError
from regdpo.core.store import IDENTITY, USERS, Store
from regdpo.runtime import inventory
from regdpo.workflow import controllers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command_line.store_option(parser)
    parser.add_argument("results", nargs="*", type=Path, help="folders of results, beside those that the store knows")
    parser.add_argument("--delete", action="store_true", help="remove what is dead, once it is confirmed")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--also", nargs="+", default=[], choices=["remembered", "resumable", "unfinished"])
    parser.add_argument("--older-than", type=float, default=1.0, metavar="DAYS", help="default: %(default)s")
    parser.add_argument("--forget", nargs="+", default=[], type=Path, metavar="RESULTS", help="that are no more")
    args = parser.parse_args()
    store = Store(args.store)
    if not (store.root / IDENTITY).is_file():
        raise UserError(f"{store.root}: is no store of the workflow (it has no {IDENTITY})")
    forgotten = {path.resolve() for path in args.forget}
    users = [user for user in store.users() if user[1].resolve() not in forgotten]
    for _, results in users:
        if not results.is_dir():
            raise UserError(
                f"{results}: was made with this store and is not here; if it is no more: --forget {results}"
            )
    items = inventory.take(store, sorted({results.resolve() for results in [*(it for _, it in users), *args.results]}))
    print(*inventory.told(items), sep="\n")
    print(*(f"{state}: {what}" for state, what in inventory.STATES.items()), sep="\n")
    old = time.time() - 86400 * args.older_than
    goes = [item for item in items if item.state in ("dead", *args.also) and item.changed < old]
    size = sum(item.size for item in goes) / 1e9
    print(f"\nto delete: {len(goes)} artefacts, {size:.3f} GB" + ("" if args.delete else " (with --delete)"))
    if not args.delete or not goes:
        return
    for folder, _ in users:
        if folder.is_dir() and (alive := controllers.controllers(folder)):
            raise UserError(f"{folder}: a run lives, nothing was deleted: {'; '.join(alive)}")
    if not args.yes:
        if not sys.stdin.isatty():
            raise UserError("--delete asks; where nobody can answer give --yes")
        if input("delete them? [y/N] ").strip().lower() != "y":
            return
    for item in goes:
        for path in item.paths(store):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    for file in (store.root / USERS).glob("*.json"):
        if any(str(path) in file.read_text() for path in forgotten):
            file.unlink()
    print(f"deleted {len(goes)} artefacts, {size:.3f} GB")


if __name__ == "__main__":
    errors.run(main)
