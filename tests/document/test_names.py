"""Names on pages are names of the code: addresses, settings, errors, files, identifiers."""

import re
from pathlib import Path

import pytest

from src.api.src.errors import ERRORS
from src.api.src.main import app
from src.common.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("src", "tests", "scripts", "benchmarks", "alembic")
CODE = {
    path: path.read_text(encoding="utf-8")
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != Path(__file__)
}
EVERYTHING = "\n".join(CODE.values())
UNLISTED = {"/api/v1/stripe-webhook"}
"""Addresses that OpenAPI leaves out: other names of those that it lists."""
OF_OTHERS = {
    *("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"),
    *(
        "pg_basebackup",
        "remote_apply",
        "remote_write",
        "pg_trgm",
        "track_functions",
        "concat_ws",
        "archive_command",
        "archive_timeout",
        "autovacuum_freeze_max_age",
        "get_route_handler",
        "hot_standby_feedback",
    ),
    *("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TIMEOUT", "parentbased_traceidratio"),
    *("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "citus_schema_distribute"),
}
"""Names of uv, npm, PostgreSQL, FastAPI, OpenTelemetry and Citus."""


def named(pattern: str, text: str) -> set[str]:
    """What a page has in backquotes that looks like this."""
    return set(re.findall(f"`{pattern}`", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_on_a_page_exist(page: Path) -> None:
    """What was renamed or removed is not named any more."""
    text = page.read_text(encoding="utf-8")
    constants = named(r"([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)", text)
    known = {field.upper() for field in Settings.model_fields} | ERRORS.keys() | OF_OTHERS
    missing = {name for name in constants - known if name not in EVERYTHING}
    identifiers = named(r"([a-z]+(?:_[a-z]+)+)(?:\(.*?\))?", text) - OF_OTHERS
    missing |= {name for name in identifiers if name not in EVERYTHING}
    revisions = named(r"([0-9a-f]{12})", text)
    missing |= {revision for revision in revisions if revision not in EVERYTHING}
    files = {path.name for path in CODE} | named(r"([a-z_]+\.py)", _made_on(text))
    missing |= named(r"([a-z_]+\.py)", text) - files
    paths = named(r"((?:src|tests|benchmarks|alembic|docs)/[\w./-]+)", text)
    missing |= {path for path in paths if not (ROOT / path).exists()}
    assert missing == set()


def _made_on(page: str) -> str:
    """Files that the reader of a page makes: `Put this into a file `spend.py`, or titles."""
    titles = re.findall(r'^```python title="(\w+\.py)"', page, re.MULTILINE)
    named_so = re.findall(r"(?:Put this (?:in|into)[^:]*?)(`[a-z_]+\.py`)", page)
    return "\n".join([*(f"`{title}`" for title in titles), *named_so])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_addresses_on_a_page_exist(page: Path) -> None:
    """With the method that the page gives, and with whatever stands for what they name."""
    operations = [
        (method.upper(), re.compile(re.sub(r"\{\w+\}", "[^/]+", path)))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]
    found = re.findall(
        r"`(?:(GET|POST|PATCH|PUT|DELETE) )?(/api/v1/[^\s`?]+?)/?(?:\?[^`]*)?`",
        page.read_text(encoding="utf-8"),
    )
    assert {
        (method, path)
        for method, path in found
        if path not in UNLISTED
        and not any(
            template.fullmatch(path) and method in {"", operation}
            for operation, template in operations
        )
    } == set()
