"""Signing in and out: by a link that is used once (ENV=local), or at the identity provider."""

import re
import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import Forbidden, NotFound
from src.console import sessions
from src.console.audit import record
from src.console.forms import Form, posted
from src.console.oidc import MayNotComeIn, NotSignedInThere, Provider
from src.console.people import SESSION, Person
from src.console.rendering import path_of, render
from src.console.service import settings_of

router = APIRouter(prefix="/sign-in")

NEXT = "next"
_PATH = re.compile(r"/(?![/\\])[^\\\s\x00-\x1f]{0,2000}")
"""Where a sign-in leads: below the console, and to no other host."""


async def _provider_of(request: Request) -> Provider:
    provider: Provider | None = request.app.state.provider
    if provider is None:
        raise NotFound("Nobody signs in at an identity provider here", "NOT_FOUND")
    return provider


ProviderOf = Annotated[Provider, Depends(_provider_of)]


@router.get("", name="console_sign_in")
async def show_sign_in(request: Request) -> Response:
    """How to come in."""
    settings = settings_of(request)
    _keep_next(request)
    return render(
        request,
        None,
        "sign_in.html",
        has_oidc=settings.console_has_oidc,
        is_local=settings.is_local,
    )


@router.get("/link", name="console_link")
async def follow_link(request: Request, token: str = "") -> Response:
    """Come in by a link of `flashslides serve` or `console link`; it is used up."""
    if not settings_of(request).is_local:
        raise NotFound("Nobody signs in by a link here", "NOT_FOUND")

    def work(session: Session) -> str | None:
        secret = sessions.use_link(session, token)
        if secret is not None:
            _record_sign_in(session, secret)
        return secret

    secret = await run_in_async_database_transaction(work)
    if secret is None:
        raise Forbidden(
            "This link was used already, is too old, or is none: `flashslides console link` prints "
            "a new one",
            "FORBIDDEN",
        )
    return _come_in(request, secret)


@router.get("/oidc", name="console_oidc")
async def go_to_provider(request: Request, provider: ProviderOf) -> Response:
    """On to the identity provider."""
    return await provider.send_there(request, only_confirm=False)


@router.get("/confirm", name="console_oidc_confirm")
async def go_to_be_confirmed(request: Request, provider: ProviderOf) -> Response:
    """On to the provider and back without a page: does the person have the role still?"""
    _keep_next(request)
    return await provider.send_there(request, only_confirm=True)


@router.get("/callback", name="console_oidc_callback")
async def come_back(request: Request, provider: ProviderOf) -> Response:
    """Back from the provider. Who has no role any more is signed out."""
    before = _secret(request)
    try:
        identity = await provider.identity(request)
    except NotSignedInThere:
        await _leave(before, "the provider knows nobody here")
        request.session.pop(SESSION, None)
        return RedirectResponse(path_of(request, "console_oidc"), 303)
    except MayNotComeIn as error:
        await _leave(before, "the provider names no role", error.person_id)
        request.session.pop(SESSION, None)
        raise

    def work(session: Session) -> str:
        if before is not None and sessions.confirm(session, before, identity):
            return before
        secret = sessions.begin(session, identity)
        _record_sign_in(session, secret)
        return secret

    secret = await run_in_async_database_transaction(work)
    if before != secret:
        await _leave(before, "another session began")
    return _come_in(request, secret)


@router.post("/out", name="console_sign_out")
async def sign_out(request: Request, _form: Annotated[Form, posted()]) -> Response:
    """End the session, wherever else its cookie is."""
    await _leave(_secret(request), "the person signed out")
    request.session.clear()
    return RedirectResponse(path_of(request, "console_sign_in"), 303)


def _come_in(request: Request, secret: str) -> Response:
    """A session of its own: whatever the cookie had before, nobody else knows this secret."""
    going = request.session.get(NEXT)
    request.session.clear()
    request.session[SESSION] = secret
    to = going if isinstance(going, str) and _PATH.fullmatch(going) else "/"
    root = str(request.scope.get("root_path", "")).rstrip("/")
    return RedirectResponse(root + to, 303, {"Referrer-Policy": "no-referrer"})


def _keep_next(request: Request) -> None:
    wanted = request.query_params.get(NEXT, "")
    if _PATH.fullmatch(wanted) and not wanted.startswith("/sign-in"):
        request.session[NEXT] = wanted


def _secret(request: Request) -> str | None:
    secret = request.session.get(SESSION)
    return secret if isinstance(secret, str) else None


async def _leave(secret: str | None, because: str, lost: uuid.UUID | None = None) -> None:
    """End the session; with `lost`, all of that person, who works here no more."""

    def work(session: Session) -> None:
        known = None if secret is None else sessions.find_to_end(session, secret)
        if secret is not None and known is not None:
            record(session, _person(known), "sign_out", after={"because": because})
            sessions.end(session, secret)
        if lost is not None:
            sessions.end_all(session, lost)

    await run_in_async_database_transaction(work)


def _record_sign_in(session: Session, secret: str) -> None:
    known = sessions.find(session, secret)
    assert known is not None  # noqa: S101  begun in this database transaction
    record(session, _person(known), "sign_in", after={"roles": sorted(known.roles)})


def _person(known: sessions.Known) -> Person:
    return Person(f"user:{known.person_id}", known.name, known.roles)
