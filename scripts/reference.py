"""Write the generated pages of docs/reference, the dashboard, and the table of the doctor's checks.

A test compares them with what this makes, so they cannot drift.
"""

import re
import subprocess
import sys
from pathlib import Path

from scripts.dashboard import DASHBOARD, dashboard_file
from scripts.http_page import http_page
from scripts.metrics_page import metrics_page
from scripts.reports_page import reports_page
from scripts.rooms import rooms_page
from scripts.schema import schema_page
from src.api.src.errors import ERRORS
from src.api.src.main import app
from src.cli import exit_codes
from src.cli.instants import EXAMPLES
from src.common.doctor.catalogue import CHAPTERS

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
CHECKS_BEGIN = "<!-- The checks, made by `uv run just reference`; do not edit. -->"
CHECKS_END = "<!-- End of the checks. -->"
MADE_BY = "<!-- Made by `uv run just reference`; do not edit. -->\n\n"


CONVENTIONS = f"""
## Output

Results go to stdout. Everything else goes to stderr.

People get tables. In a terminal, empty columns are left out. If a row does not fit its line, the
rows become records, one below the other. Nothing is cut or folded. In a pipe a row is one line.

Programs get JSON with `--json`:

| what is printed | JSON |
|---|---|
| one thing | an object |
| several things | a list of objects |
| a page of things | `{{"items": […], "next_cursor": "…"}}` |

`--cursor` takes `next_cursor` and gets the next page. It is null on the last page. Fields are named
as in [the API](http.md). Instants are ISO 8601 in UTC, as `2030-01-31T14:00:00Z`. Ids are text.

## Instants

Options that take an instant take {EXAMPLES}. An instant
without a zone is in `--time-zone`, which is UTC by default. A date alone is the first moment of
that day in that zone.
"""


def errors_page() -> str:
    """Every error of the API: type, status, meaning."""
    rows = "".join(
        f"| `{error_type}` | {status} | {meaning} |\n"
        for error_type, (status, meaning) in sorted(ERRORS.items())
    )
    return (
        f"{MADE_BY}# Errors\n\n"
        "Every error of the API has the same body:\n\n"
        '```json\n{"detail": {"error_type": "…", "message": "…", "request_id": "…"}}\n```\n\n'
        "- `error_type` is for programs. It never changes.\n"
        "- `message` is for people.\n"
        "- `request_id` finds the request in the service's logs.\n"
        "- Some errors have more fields, such as `required`; the table names most.\n"
        "\nWhere the answer has the header `Retry-After`, the same request with the same "
        "`Idempotency-Key`\nmay succeed after so many seconds. That is so for every 503 and for "
        "`REQUEST_IN_PROGRESS`.\n\n"
        f"| error_type | status | meaning |\n|---|---|---|\n{rows}"
    )


def command_line_page() -> str:
    """Every command and option, as typer describes them, and each command's first line in full."""
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
    page = _with_whole_summaries(made.strip().replace("&#x27;", "'"))
    return f"{MADE_BY}{_with_bounds_in_words(page)}\n{CONVENTIONS}{_exit_codes()}"


def _with_whole_summaries(page: str) -> str:
    """The lists of commands with each command's first line; typer cuts it after 45 characters."""
    first_lines = dict(re.findall(r"^#+ `flashslides (.+?)`\n\n(.+)$", page, re.MULTILINE))
    lines: list[str] = []
    group = ""
    for line in page.splitlines():
        if heading := re.match(r"#+ `flashslides (.+?)`$", line):
            group = f"{heading[1]} "
        listed = re.match(r"\* `([a-z][a-z-]*)`: ", line)
        lines.append(f"{listed[0]}{first_lines[group + listed[1]]}" if listed else line)
    return "\n".join(lines)


def _with_bounds_in_words(page: str) -> str:
    page = page.replace("<int range>", "<int>").replace("<float range>", "<float>")
    page = re.sub(r"([\d.]+)&lt;=x&lt;=([\d.]+)\]", r"\1 to \2]", page)
    return re.sub(r"x&gt;=([\d.]+)\]", r"at least \1]", page)


def _exit_codes() -> str:
    rows = "".join(f"| {code} | {meaning} |\n" for code, meaning in exit_codes.MEANINGS.items())
    return (
        "\n## Exit codes\n\nA command that fails prints one line on stderr, which begins with "
        "`flashslides: `. A wrong option or\nargument is told with the command's usage. `-h` is "
        "`--help` for every command.\n\n"
        f"| exit code | meaning |\n|---|---|\n{rows}"
    )


def checks_table() -> str:
    """Every check of `flashslides doctor`, by what it is about."""
    chapters = [
        f"### {chapter}\n\n| check | looks at | why |\n|---|---|---|\n"
        + "".join(f"| `{each.name}` | {each.looks_at} | {each.why} |\n" for each in checks)
        for chapter, checks in CHAPTERS.items()
    ]
    return "\n".join(chapters)


def with_checks(page: str) -> str:
    """The page about the doctor, with the table of now."""
    before, _, rest = page.partition(CHECKS_BEGIN)
    _, _, after = rest.partition(CHECKS_END)
    return f"{before}{CHECKS_BEGIN}\n\n{checks_table()}\n{CHECKS_END}{after}"


def main() -> None:
    """Write the pages."""
    doctor = REFERENCE.parent / "how-to" / "find-what-is-wrong.md"
    doctor.write_text(with_checks(doctor.read_text(encoding="utf-8")), encoding="utf-8")
    (REFERENCE / "errors.md").write_text(errors_page())
    (REFERENCE / "cli.md").write_text(command_line_page())
    (REFERENCE / "http.md").write_text(MADE_BY + http_page(app.openapi()))
    (REFERENCE / "reports.md").write_text(MADE_BY + reports_page())
    (REFERENCE / "rooms.md").write_text(MADE_BY + rooms_page())
    (REFERENCE / "schema.md").write_text(MADE_BY + schema_page())
    (REFERENCE / "metrics.md").write_text(MADE_BY + metrics_page())
    DASHBOARD.write_text(dashboard_file())


if __name__ == "__main__":
    main()
