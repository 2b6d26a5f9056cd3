"""The doctor: what is wrong, why it matters, and what to do next."""

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from src.common.doctor.catalogue import CHAPTERS, named
from src.common.doctor.context import Context
from src.common.doctor.examination import Examined, examine
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import render

router = APIRouter(prefix="/doctor")

BADGES = {"ok": "ok", "warn": "warn", "fail": "fail", "unknown": "warn", "skipped": "quiet"}


@router.get("", name="console_doctor")
async def show_doctor(
    request: Request, person: Annotated[Person, require(Permission.DOCTOR_SEE)]
) -> Response:
    """Every check, as `flashslides doctor` runs them."""
    found = {each.name: each for each in await run_in_threadpool(examined, ())}
    chapters = {
        title: [found[check.name] for check in checks] for title, checks in CHAPTERS.items()
    }
    return render(
        request,
        person,
        "doctor.html",
        chapters=chapters,
        counted=Counter(each.status for each in found.values()),
        badges=BADGES,
    )


def examined(names: tuple[str, ...]) -> list[Examined]:
    """What these checks find now, or all of them, on a connection of their own."""
    context = Context()
    try:
        return list(examine(named(names), context))
    finally:
        context.close()
