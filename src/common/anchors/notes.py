"""Signed notes: a text and signatures of Ed25519 below it, as the Go checksum database has them.

The format is C2SP's `signed-note`: other programs verify it too, such as Go's
`golang.org/x/mod/sumdb/note`. A key has a name and an id, and is written in one line.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from src.common.exceptions import Inconsistent, Invalid

_ED25519 = b"\x01"
"""The octet that says which algorithm a key is of."""
_ID_OCTETS = 4
_KEY_OCTETS = 32
_SIGNATURE_OCTETS = 64
_NAME = re.compile(r"[^\s+]+")
_PRIVATE = "PRIVATE+KEY"
_MARK = "\u2014 "  # an em dash, as the format has it


@dataclass(frozen=True)
class PublicKey:
    """What verifies the signatures of one key."""

    name: str
    key: Ed25519PublicKey = field(repr=False)

    @property
    def id(self) -> bytes:
        """What a signature names it by: four octets, made from the name and the key."""
        hashed = f"{self.name}\n".encode() + _ED25519 + self.key.public_bytes_raw()
        return hashlib.sha256(hashed).digest()[:_ID_OCTETS]

    def __str__(self) -> str:
        """In one line: `name+id+key`."""
        return f"{self.name}+{self.id.hex()}+{_encoded(_ED25519 + self.key.public_bytes_raw())}"


@dataclass(frozen=True)
class SigningKey:
    """What signs; nothing prints it but `written`."""

    name: str
    key: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """What verifies its signatures."""
        return PublicKey(self.name, self.key.public_key())

    def written(self) -> str:
        """In one line, for the file or parameter that keeps it: a secret."""
        seed = self.key.private_bytes_raw()
        return f"{_PRIVATE}+{self.name}+{self.public.id.hex()}+{_encoded(_ED25519 + seed)}"

    def sign(self, text: str) -> str:
        """The text as a note: with a signature below it.

        The text's last line ends.
        """
        signature = self.public.id + self.key.sign(text.encode())
        return f"{text}\n{_MARK}{self.name} {_encoded(signature)}\n"


def new_signing_key(name: str) -> SigningKey:
    """A key that nobody has yet.

    Raises:
        Invalid: VALIDATION_ERROR, a blank or a plus is in the name.
    """
    if not _NAME.fullmatch(name):
        raise Invalid("A key's name has no blanks and no +", "VALIDATION_ERROR", field="name")
    return SigningKey(name, Ed25519PrivateKey.generate())


def parse_signing_key(line: str) -> SigningKey:
    """A key as `written` writes it.

    Raises:
        Invalid: VALIDATION_ERROR; the sentence does not repeat it.
    """
    before, _, rest = line.strip().partition(f"{_PRIVATE}+")
    name, key_id, octets = _parts(rest) if not before else (None, b"", b"")
    if name is not None:
        key = SigningKey(name, Ed25519PrivateKey.from_private_bytes(octets))
        if key.public.id == key_id:
            return key
    raise Invalid(
        f"A signing key is a line {_PRIVATE}+name+id+key, as `flashslides anchors keygen` makes "
        "it; this is none, or part of one",
        "VALIDATION_ERROR",
        field="signing_key",
    )


def parse_public_key(line: str) -> PublicKey:
    """A public key as its `str` writes it.

    Raises:
        Invalid: VALIDATION_ERROR.
    """
    name, key_id, octets = _parts(line.strip())
    if name is not None:
        key = PublicKey(name, Ed25519PublicKey.from_public_bytes(octets))
        if key.id == key_id:
            return key
    raise Invalid(
        "A public key is written name+id+key, as `flashslides anchors keygen` prints it",
        "VALIDATION_ERROR",
        field="public_key",
    )


def verified_text(note: str, keys: Sequence[PublicKey]) -> str:
    """The text of a note that one of these keys has signed.

    Signatures of other keys are passed over: so a note can be signed by an old and a new one.

    Raises:
        Inconsistent: ANCHOR_SIGNATURE_INVALID, none of the keys has, or not this text.
    """
    text, signatures = _taken_apart(note)
    known = {(key.name, key.id): key for key in keys}
    is_signed = False
    for name, key_id, signature in signatures:
        key = known.get((name, key_id))
        if key is None:
            continue
        try:
            key.key.verify(signature, text.encode())
        except InvalidSignature:
            raise _refused(f"the signature of {name} is not of this text") from None
        is_signed = True
    if not is_signed:
        raise _refused("no key that was given has signed it")
    return text


def text_of(note: str) -> str:
    """The text of a note, whoever has signed it.

    Raises:
        Inconsistent: ANCHOR_SIGNATURE_INVALID, it is no note.
    """
    return _taken_apart(note)[0]


def _taken_apart(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    text, separator, below = note.rpartition("\n\n")
    if not separator or not below.endswith("\n"):
        raise _refused("it has no signature below it")
    signatures: list[tuple[str, bytes, bytes]] = []
    for line in below[:-1].split("\n"):
        mark, name, encoded = line[: len(_MARK)], *line[len(_MARK) :].partition(" ")[::2]
        signature = _decoded(encoded)
        if mark != _MARK or not _NAME.fullmatch(name) or signature is None:
            raise _refused("a line below it is no signature")
        if len(signature) == _ID_OCTETS + _SIGNATURE_OCTETS:
            signatures.append((name, signature[:_ID_OCTETS], signature[_ID_OCTETS:]))
    return f"{text}\n", signatures


def _parts(line: str) -> tuple[str | None, bytes, bytes]:
    """Name, id and octets of a key; no name where the line is no key of Ed25519."""
    name, _, rest = line.partition("+")
    key_id, _, encoded = rest.partition("+")
    octets = _decoded(encoded) or b""
    try:
        found = bytes.fromhex(key_id)
    except ValueError:
        found = b""
    if not _NAME.fullmatch(name) or octets[:1] != _ED25519 or len(octets) != 1 + _KEY_OCTETS:
        return None, b"", b""
    return name, found, octets[1:]


def _encoded(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _decoded(encoded: str) -> bytes | None:
    try:
        octets = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return octets if _encoded(octets) == encoded else None


def _refused(why: str) -> Inconsistent:
    return Inconsistent(f"The note is not to be believed: {why}", "ANCHOR_SIGNATURE_INVALID")
