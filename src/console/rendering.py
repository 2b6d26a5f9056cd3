"""Pages: a template with what every page has, the confirmation before an action, and after it."""

import datetime as dt
import json
import uuid
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.common.exceptions import ExceptionWithErrorType
from src.common.printable import printable
from src.console.forms import (
    CONFIRMED_FIELD,
    KEY_FIELD,
    TOKEN_FIELD,
    Form,
    field_of,
    hidden_fields,
    token_of,
)
from src.console.navigation import NAVIGATION
from src.console.wording import KINDS, SHARES, STEPS, told, user_named
from src.html_pages import money
from src.http_statuses import STATUS_BY_KIND

if TYPE_CHECKING:
    from fastapi import Request

    from src.console.charts import Figure
    from src.console.people import Person

FOLDER = Path(__file__).parent
DONE = "done"
"""What the cookie calls the sentence that the next page shows."""
SHOWN_LENGTH_MAX = 10_000
NOTHING = "—"
"""What stands where there is no figure."""


def render(
    request: "Request",
    person: "Person | None",
    template: str,
    *,
    problem: ExceptionWithErrorType | None = None,
    form: Form | None = None,
    status: int = 200,
    **context: Any,
) -> HTMLResponse:
    """A page; with `problem`, its sentence stands above and the status is its kind's.

    With `form`, the fields of the page's forms keep what was written into them.
    """
    if problem is not None:
        status = STATUS_BY_KIND[problem.kind]
    written = (
        _environment()
        .get_template(template)
        .render(
            person=person,
            path=_Paths(request),
            navigation=[each for each in NAVIGATION if person and person.may(each.permission)],
            here=request.scope["path"],
            form_token=token_of(request),
            form_key=uuid.uuid4(),
            done=request.session.pop(DONE, None),
            problem=problem,
            wrong_field=field_of(problem),
            given={} if form is None else dict(hidden_fields(form)),
            **context,
        )
    )
    headers = {} if problem is None else _retry_after(problem)
    return HTMLResponse(written, status, headers)


def confirm(
    request: "Request",
    person: "Person",
    form: Form,
    *,
    heading: str,
    facts: Mapping[str, str],
    button: str,
    cancel: str | None,
    warning: str | None = None,
) -> HTMLResponse:
    """What the form will do, to be agreed to; the same form with the same key comes again.

    `facts` is the dry run: what is now and what will be, in words. `cancel` is the address to which
    whoever changes their mind goes; None where it may have been done already.
    """
    return render(
        request,
        person,
        "confirm.html",
        heading=heading,
        facts=facts,
        button=button,
        cancel=cancel,
        warning=warning,
        action=request.scope["path"],
        fields=[(CONFIRMED_FIELD, "yes"), (KEY_FIELD, str(form.written_key)), *hidden_fields(form)],
    )


def done(
    request: "Request", sentence: str, route: str, fragment: str = "", **values: Any
) -> RedirectResponse:
    """After an action: on to a page by GET, so that a reload repeats nothing, with a sentence."""
    request.session[DONE] = sentence[:SHOWN_LENGTH_MAX]
    return RedirectResponse(path_of(request, route, **values) + fragment, 303)


def path_of(request: "Request", route: str, **values: Any) -> str:
    """The address of a route, without the host: nobody's `Host` header leads elsewhere."""
    path: str = request.app.url_path_for(route, **values)
    return str(request.scope.get("root_path", "")).rstrip("/") + path


class _Paths:
    def __init__(self, request: "Request") -> None:
        self._request = request

    def __call__(self, route: str, **values: Any) -> str:
        return path_of(self._request, route, **values)


def _retry_after(problem: ExceptionWithErrorType) -> dict[str, str]:
    seconds = problem.retry_after_seconds
    return {} if seconds is None else {"Retry-After": str(seconds)}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Typed as what Jinja itself puts there.
    names: dict[str, Any] = cast("Any", environment.globals)
    names.update(TOKEN_FIELD=TOKEN_FIELD, KEY_FIELD=KEY_FIELD)
    names.update(KINDS=KINDS, SHARES=SHARES, STEPS=STEPS)
    filters: dict[str, Any] = cast("Any", environment.filters)
    filters.update(number=_number, money=money, instant=_instant, plain=_plain)
    filters.update(signed=_signed, laid_out=_laid_out, told=told, user_named=user_named)
    return environment


def _number(value: "Figure | None") -> str:
    """With its thousands apart."""
    return NOTHING if value is None else f"{value:,}"


def _signed(value: int) -> str:
    """What came (+) or went (-), with its thousands apart."""
    return f"{value:+,}"


def _laid_out(document: object) -> str:
    """JSON with its levels, as `plain` text."""
    return _plain(json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True))


def _instant(value: dt.datetime | None) -> str:
    """An instant in UTC, to the second."""
    return NOTHING if value is None else f"{value.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _plain(value: object, length_max: int = SHOWN_LENGTH_MAX) -> str:
    """What others wrote, with characters made visible that control or turn what is shown."""
    text = printable(str(value))
    return text if len(text) <= length_max else f"{text[:length_max]}…"
