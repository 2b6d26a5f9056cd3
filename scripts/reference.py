"""Write the generated pages of docs/reference: command line, HTTP, errors, schema, rooms.

A test compares them with what this makes, so they cannot drift.
"""

import subprocess
import sys
from pathlib import Path

from scripts.http_page import http_page
from scripts.rooms import rooms_page
from scripts.schema import schema_page
from src.api.src.errors import ERRORS
from src.api.src.main import app
from src.cli import exit_codes
from src.cli.instants import EXAMPLES

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
MADE_BY = "<!-- Made by `uv run just reference`; do not edit. -->\n\n"


CONVENTIONS = f"""
## Output

Results go to stdout, everything else to stderr. In a terminal columns where nothing stands are left
out, and where a row does not fit its line, one record stands below the other. Nothing is cut or
folded; in a pipe a row is one line.

With `--json` the answer is one JSON document. One thing is an object, several things are a list of
objects, and what comes in pages is an object of the list (`items`) and of what `--cursor` takes for
the next one (`next_cursor`, null on the last). Fields are named as in the API. Instants are
ISO 8601 in UTC, as `2030-01-31T14:00:00Z`; ids are text.

## Instants

Options that take an instant take {EXAMPLES}. What names
no zone of its own is meant in `--time-zone`, which is UTC by default; a date alone is the first
moment of that day there.
"""


def errors_page() -> str:
    """Every error of the API: type, status, meaning."""
    rows = "".join(
        f"| `{error_type}` | {status} | {meaning} |\n"
        for error_type, (status, meaning) in sorted(ERRORS.items())
    )
    return (
        f"{MADE_BY}# Errors\n\n"
        'Every error has one body: `{"detail": {"error_type": "…", "message": "…", '
        '"request_id": "…", …}}`.\nPrograms look at `error_type`, which never changes; the message '
        "is for people. 503 answers, and\n`REQUEST_IN_PROGRESS`, carry `Retry-After`: the same "
        "request, with the same `Idempotency-Key`, may\nsucceed then.\n\n"
        f"| error_type | status | meaning |\n|---|---|---|\n{rows}"
    )


def command_line_page() -> str:
    """Every command and option, as typer describes them."""
    made = subprocess.run(
        [
            *(sys.executable, "-m", "typer", "src.cli.commands", "utils", "docs"),
            *("--name", "flashslides", "--title", "The command line"),
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=REFERENCE.parent.parent,
    ).stdout
    return f"{MADE_BY}{made.strip()}\n{CONVENTIONS}{_exit_codes()}"


def _exit_codes() -> str:
    rows = "".join(f"| {code} | {meaning} |\n" for code, meaning in exit_codes.MEANINGS.items())
    return (
        "\n## Exit codes\n\nWhat a command cannot do is one line on stderr, which begins with "
        "`flashslides: `; wrong use is told\nwith the command's usage. `-h` is `--help` "
        "everywhere.\n\n"
        f"| exit code | meaning |\n|---|---|\n{rows}"
    )


def main() -> None:
    """Write the pages."""
    (REFERENCE / "errors.md").write_text(errors_page())
    (REFERENCE / "cli.md").write_text(command_line_page())
    (REFERENCE / "http.md").write_text(MADE_BY + http_page(app.openapi()))
    (REFERENCE / "rooms.md").write_text(MADE_BY + rooms_page())
    (REFERENCE / "schema.md").write_text(MADE_BY + schema_page())


if __name__ == "__main__":
    main()
