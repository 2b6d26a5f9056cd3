"""Lays out rows and records for the width of a terminal."""

from collections.abc import Mapping, Sequence

from rich.cells import cell_len

_GAP = "  "


def lay_out_rows(rows: Sequence[Mapping[str, str]], width: int | None) -> list[str]:
    """A line for each row below the columns' names; where one does not fit, one below the other.

    Without a width, as in a pipe, a row is one line however long.
    """
    names = [name for name in _names(rows) if any(row.get(name) for row in rows)]
    cells = [names, *([row.get(name, "") for name in names] for row in rows)]
    if width is None:
        cells = [[cell.replace("\n", r"\n") for cell in row] for row in cells]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    is_on_one_line = not any("\n" in cell for row in cells for cell in row)
    if width is None or (is_on_one_line and sum(widths) + len(_GAP) * (len(names) - 1) <= width):
        return [_aligned(row, widths) for row in cells]
    records = [lay_out_record(row, width) for row in rows]
    return [line for record in records for line in ("", *record)][1:]


def lay_out_record(record: Mapping[str, str], width: int | None) -> list[str]:
    """A line for each field, or several below each other, broken between words."""
    filled = {name: value for name, value in record.items() if value}
    indent = max(map(cell_len, filled), default=0) + len(_GAP)
    lines: list[str] = []
    for name, value in filled.items():
        label = name
        for line in value.split("\n"):
            for part in [line] if width is None else _wrapped(line, width - indent):
                lines.append(f"{_padded(label, indent)}{part}".rstrip())
                label = ""
    return lines


def lay_out_paragraph(text: str, width: int | None, indent: int, *, continued: str = "") -> str:
    """A text of one paragraph, whose further lines are indented; the first has its indent already.

    `continued` ends every line but the last, as a shell's command needs it.
    """
    if width is None:
        return text
    lines = _wrapped(text, width - indent - cell_len(continued))
    return f"{continued}\n{' ' * indent}".join(lines)


def _names(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Of all rows, in the order in which they are met."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (_padded(cell, width) for cell, width in zip(cells, widths, strict=True))
    return _GAP.join(padded).rstrip()


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _wrapped(line: str, width: int) -> list[str]:
    """A line broken where words end; a word that is too long stays whole."""
    first, *others = line.split(" ")
    lines = [first]
    for word in others:
        longer = f"{lines[-1]} {word}"
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
