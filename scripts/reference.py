"""Write the generated pages of docs/reference: the command line, the API's errors, the schema.

A test compares them with what this makes, so they cannot drift.
"""

import subprocess
import sys
from pathlib import Path

from scripts.schema import schema_page
from src.api.src.errors import ERRORS
from src.cli import exit_codes

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
MADE_BY = "<!-- Made by `uv run just reference`; do not edit. -->\n\n"


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
    return f"{MADE_BY}{made.strip()}\n{_exit_codes()}"


def _exit_codes() -> str:
    rows = "".join(f"| {code} | {meaning} |\n" for code, meaning in exit_codes.MEANINGS.items())
    return (
        "\n## Exit codes\n\nResults go to stdout, everything else to stderr. What a command cannot "
        "do is one line there, which\nbegins with `flashslides: `. `-h` is `--help`.\n\n"
        f"| exit code | meaning |\n|---|---|\n{rows}"
    )


def main() -> None:
    """Write the pages."""
    (REFERENCE / "errors.md").write_text(errors_page())
    (REFERENCE / "cli.md").write_text(command_line_page())
    (REFERENCE / "schema.md").write_text(MADE_BY + schema_page())


if __name__ == "__main__":
    main()
