"""What a benchmark tells: its figures on stdout, how far it is on stderr."""

import sys


def show(line: str) -> None:
    """A line of figures."""
    print(line, flush=True)


def tell(line: str) -> None:
    """What it is doing now."""
    print(line, file=sys.stderr, flush=True)
