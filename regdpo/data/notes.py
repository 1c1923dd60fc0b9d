"""What takes long to find out, remembered in the store as JSON that tells whether it is whole."""

import hashlib
import json
from typing import Any

from regdpo.core.digests import canonical
from regdpo.core.store import Store


def recall(store: Store, relative: str) -> Any:
    """What was remembered there, if it is as it was written; else None."""
    try:
        digest, _, text = store.resolve(relative).read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    return json.loads(text) if hashlib.sha256(text).hexdigest().encode() == digest else None


def remember(store: Store, relative: str, value: Any) -> None:
    """Write it, in the place of what was there."""
    with store.writing(relative) as temporary:
        text = canonical(value).encode()
        temporary.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
