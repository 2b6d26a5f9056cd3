"""The glossary names modules that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/glossary.md").read_text()


def test_every_word_says_where_it_lives() -> None:
    """In a module or a room of `src/common`, or on a page."""
    rows = re.findall(r"^\| (?!word|---)(.+?) \|.*\| (.+?) \|$", PAGE, re.MULTILINE)
    places = [re.fullmatch(r"`(.+)`|\[.+\]\(\.\./(.+)\)", place) for _, place in rows]
    assert len(rows) > 40
    assert [word for (word, _), place in zip(rows, places, strict=True) if place is None] == []
    assert [
        place[0]
        for place in places
        if place is not None
        and not (ROOT / "src/common" / (place[1] or "-")).exists()
        and not (ROOT / "docs" / (place[2] or "-")).exists()
    ] == []
