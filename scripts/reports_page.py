"""The page `docs/reference/reports.md`: every report and its columns, made from the code."""

from src.common.reports.catalogue import REPORTS, Report

INTRODUCTION = """# Reports

```bash
flashslides report movements --by month
```

Every report is a command and, with the scope `reports:read`, `GET /api/v1/reports/{name}`. What to
do with them says [this page](../how-to/report-and-reconcile-figures.md).

All figures of a report are of one snapshot of the database. What has expired counts as expired from
its own instant, booked or not (rule 8). The names of columns never change; there may be more.

An instant is written in the time zone that was asked for. In CSV and workbooks a text that begins
with `=`, `+`, `-`, `@` or a tab gets an apostrophe in front, so no spreadsheet calculates it.
"""


def reports_page() -> str:
    """The page without the line that says who made it."""
    sections = (_section(name, report) for name, report in REPORTS.items())
    return INTRODUCTION + "".join(sections)


def _section(name: str, report: Report) -> str:
    takes = {
        "--from": report.has_beginning,
        "--to": report.has_end,
        "--by day|week|month": report.has_periods,
        "--test-money": report.values_credits,
        "--with-balance": report.filters_users,
        "--with-debt": report.filters_users,
        "--idle-since": report.filters_users,
    }
    options = ", ".join(f"`{option}`" for option, is_taken in takes.items() if is_taken)
    rows = "".join(
        f"| `{column.name}` | {column.holds} | {column.meaning} |\n" for column in report.columns
    )
    return (
        f"\n## {name}\n\n{report.meaning} Takes {options}.\n\n"
        f"| column | cells | meaning |\n|---|---|---|\n{rows}"
    )
