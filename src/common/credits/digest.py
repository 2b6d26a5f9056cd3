"""The digest that tells a replay from another request under the same key (DESIGN §4 rule 2)."""

import datetime as dt
import hashlib

VERSION = 1


def digest_of(*values: object) -> bytes:
    """SHA-256 over the values in order, each with its length, so that no two lists collide."""
    digest = hashlib.sha256()
    for value in (VERSION, *values):
        encoded = _encode(value)
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    return digest.digest()


def _encode(value: object) -> bytes:
    """One value, marked with what it is: None, text and numbers never look alike."""
    if value is None:
        return b"n"
    if isinstance(value, dt.datetime):
        return b"t" + value.astimezone(dt.UTC).isoformat().encode()
    if isinstance(value, bool):
        return b"b1" if value else b"b0"
    if isinstance(value, int):
        return b"i" + str(value).encode()
    return b"s" + str(value).encode("utf-8", "surrogatepass")
