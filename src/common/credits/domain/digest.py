"""The digest of a request: the same key with another digest is refused (rule 2)."""

import datetime as dt
import hashlib
from functools import lru_cache

VERSION = 1


@lru_cache(maxsize=4_096, typed=True)
def digest_of(actor: str, operation: str, kind: str, *values: object) -> bytes:
    """SHA-256 over all of it in order, each value with its length, so that no two lists collide."""
    return hashlib.sha256(digested_bytes(actor, operation, kind, *values)).digest()


def digested_bytes(actor: str, operation: str, kind: str, *values: object) -> bytes:
    """What the digest is taken of; more values would be appended to it."""
    written = _beginning(actor, operation, kind)
    for value in values:
        encoded = _encode(value)
        written += len(encoded).to_bytes(4, "big") + encoded
    return written


@lru_cache(maxsize=1_024)
def _beginning(actor: str, operation: str, kind: str) -> bytes:
    """What the requests of one actor have in common."""
    return b"".join(map(_with_length, (VERSION, actor, operation, kind)))


def _with_length(value: object) -> bytes:
    encoded = _encode(value)
    return len(encoded).to_bytes(4, "big") + encoded


def _encode(value: object) -> bytes:
    """One value, marked with what it is: None, text and numbers never look alike."""
    if value is None:
        return b"n"
    if type(value) is int:
        return b"i%d" % value
    if isinstance(value, dt.datetime):
        return b"t" + value.astimezone(dt.UTC).isoformat().encode()
    if isinstance(value, bool):
        return b"b1" if value else b"b0"
    return b"s" + str(value).encode("utf-8", "surrogatepass")
