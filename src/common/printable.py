"""Makes text that others wrote harmless to a terminal."""

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
