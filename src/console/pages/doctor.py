"""The doctor: what is wrong, why it matters, and what to do next."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response

from src.common.doctor.catalogue import CHAPTERS, named
from src.common.doctor.context import Context
from src.common.doctor.examination import Examined, examine
from src.console.known import Known
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import render

router = APIRouter(prefix="/doctor")

FRESH_SECONDS = 5.0
BADGES = {"ok": "ok", "warn": "warn", "fail": "fail", "unknown": "warn", "skipped": "quiet"}


@router.get("", name="console_doctor")
async def show_doctor(
    request: Request, person: Annotated[Person, require(Permission.DOCTOR_SEE)]
) -> Response:
    """Every check, as `flashslides doctor` runs them, some seconds old at most."""
    known: KnownChecks = request.app.state.checks
    examination = await known.get()
    if examination is None:
        return render(request, person, "doctor.html", read_at=None)
    found = {each.name: each for each in examination.checks}
    chapters = {
        title: [found[check.name] for check in checks] for title, checks in CHAPTERS.items()
    }
    return render(
        request,
        person,
        "doctor.html",
        read_at=examination.read_at,
        chapters=chapters,
        counted=Counter(each.status for each in found.values()),
        badges=BADGES,
    )


@dataclass(frozen=True)
class Examination:
    """What all checks found."""

    read_at: dt.datetime
    checks: Sequence[Examined]


class KnownChecks(Known[Examination]):
    """The newest that this process has looked at."""

    def __init__(self) -> None:
        super().__init__(_examination, fresh_seconds=FRESH_SECONDS)


def _examination() -> Examination:
    return Examination(dt.datetime.now(dt.UTC), examined(()))


def examined(names: tuple[str, ...]) -> list[Examined]:
    """What these checks find now, or all of them, on a connection of their own."""
    context = Context()
    try:
        return list(examine(named(names), context))
    finally:
        context.close()
