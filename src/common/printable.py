"""Makes text that others wrote harmless to a terminal, and paths fit for a log."""

import re
import unicodedata

_ACTED_ON = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of characters that control, format or break lines."""


def printable(text: str) -> str:
    r"""`text` with every character escaped that a terminal would act on, but for line feeds.

    Others wrote much of what we print: escape sequences, and characters that turn the direction
    of writing, would have the operator see what is not there.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in _ACTED_ON
        else character.encode("unicode_escape").decode()
        for character in text
    )


_PLAIN_SEGMENT = re.compile(r"[A-Za-z_-]{0,32}|v[0-9]")


def masked_path(path: str) -> str:
    """A URL's path with every segment masked that is no plain word: any may be personal data."""
    return "/".join(part if _PLAIN_SEGMENT.fullmatch(part) else "*" for part in path.split("/"))
