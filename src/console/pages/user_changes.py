"""Changing an account: its type, whether it is active, and erasing the person's data.

Nobody becomes an administrator here: an administrator's own token moves money over HTTP, where
nobody is asked (rule 13). The command `user set-type` makes one.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from src.common.accounts import operations as accounts
from src.common.accounts.queries import get_user
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.queries import balance
from src.common.exceptions import ExceptionWithErrorType, Invalid
from src.common.models.user import User, UserType
from src.console.audit import is_recorded, record
from src.console.forms import Form, posted
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import confirm, done, path_of, render

router = APIRouter(prefix="/users/{user_id}")

TYPES = tuple(str(each) for each in UserType if each is not UserType.ADMIN)
Changer = Annotated[Person, require(Permission.USERS_CHANGE)]
Eraser = Annotated[Person, require(Permission.USERS_ERASE)]
OurForm = Annotated[Form, posted()]
ACTIVATE, DEACTIVATE = "activate", "deactivate"


@dataclass(frozen=True)
class _Wish:
    """What a form asks for."""

    user_id: uuid.UUID
    action: str
    """What the audit trail calls it."""
    heading: str
    facts: Mapping[str, str]
    button: str
    do: Callable[[Session], User]


@router.get("/change", name="console_user_change")
async def show_change(request: Request, person: Changer, user_id: uuid.UUID) -> Response:
    """What can be changed, each by a form of its own."""
    return await _page(request, person, user_id)


@router.post("/type", name="console_user_type")
async def set_type(
    request: Request, person: Changer, user_id: uuid.UUID, form: OurForm
) -> Response:
    """Change what the user is."""

    def wish() -> _Wish:
        user_type = form.required("user_type")
        if user_type not in TYPES:
            raise Invalid(
                f"user_type: one of {', '.join(TYPES)}", "VALIDATION_ERROR", field="user_type"
            )
        return _Wish(
            user_id,
            "users.change",
            f"Make the user {user_type}?",
            {"Type afterwards": user_type},
            "Change it",
            lambda session: accounts.set_user_type(session, user_id, user_type),
        )

    return await _change(request, person, user_id, form, wish)


@router.post("/active", name="console_user_active")
async def set_active(
    request: Request, person: Changer, user_id: uuid.UUID, form: OurForm
) -> Response:
    """Let the user sign in and spend, or not."""

    def wish() -> _Wish:
        what = form.required("do")
        if what not in {ACTIVATE, DEACTIVATE}:
            raise Invalid("do: activate or deactivate", "VALIDATION_ERROR", field="do")
        is_active = what == ACTIVATE
        means = (
            "they sign in, spend and open holds again"
            if is_active
            else "they neither sign in, spend nor open holds; what they pay for is credited still"
        )
        return _Wish(
            user_id,
            "users.change",
            f"{what.capitalize()} the user?",
            {"Afterwards": means},
            what.capitalize(),
            lambda session: accounts.set_active(session, user_id, is_active=is_active),
        )

    return await _change(request, person, user_id, form, wish)


@router.post("/erase", name="console_user_erase")
async def erase(request: Request, person: Eraser, user_id: uuid.UUID, form: OurForm) -> Response:
    """Erase the person's data; the journal and the purchases stay, of nobody."""

    def wish() -> _Wish:
        return _Wish(
            user_id,
            "users.erase",
            "Erase the person's data, for good?",
            {
                "What goes": "name, e-mail, preferences, what callers noted, the Stripe customer",
                "What stays": "the journal and the purchases, with ids only; credits that are left",
                "Open requests about them": "are withdrawn",
                "Can it be undone": "no",
            },
            "Erase it",
            lambda session: accounts.erase_user(session, user_id),
        )

    return await _change(request, person, user_id, form, wish)


async def _change(
    request: Request, person: Person, user_id: uuid.UUID, form: Form, make: Callable[[], _Wish]
) -> Response:
    """Show what it will do, or do it once; with what is wrong, the forms again."""
    try:
        wish, reason = make(), form.reason()
        if not form.is_confirmed:
            facts = await run_in_async_database_transaction(
                lambda session: _facts(session, person, wish)
            )
            return confirm(
                request,
                person,
                form,
                heading=wish.heading,
                facts={**facts, **wish.facts, "Reason": reason},
                button=wish.button,
                cancel=path_of(request, "console_user", user_id=user_id),
            )
        is_new = await run_in_async_database_transaction(
            lambda session: _do(session, person, form, wish)
        )
    except Invalid as error:
        return await _page(request, person, user_id, problem=error, form=form)
    sentence = "It is done." if is_new else _DONE_BEFORE
    return done(request, sentence, "console_user", user_id=user_id)


_DONE_BEFORE = (
    "This form was done before, and nothing more is done with it. To change something else, open "
    "the form anew."
)


def _facts(session: Session, person: Person, wish: _Wish) -> Mapping[str, str]:
    """Whom it is about, and what they have."""
    user = get_user(session, wish.user_id)
    record(session, person, "users.see", user_id=wish.user_id, target="change")
    now = balance(session, wish.user_id)
    return {
        "User": user.email,
        "Credits": f"{now.balance:,} in the balance, {now.held:,} held, {now.debt:,} owed",
        **{name: str(value) for name, value in _shown(user).items()},
    }


def _do(session: Session, person: Person, form: Form, wish: _Wish) -> bool:
    """Do it and record it; False where this form was done before, whatever it said then."""
    if is_recorded(session, form.key):
        return False
    user = accounts.lock_user(session, wish.user_id)
    before = None if user is None else _shown(user)
    after = _shown(wish.do(session))
    return record(
        session,
        person,
        wish.action,
        user_id=wish.user_id,
        reason=form.reason(),
        before=before,
        after=after,
        key=form.key,
    )


def _shown(user: User) -> dict[str, Any]:
    """What of an account these actions change, without anybody's name."""
    is_erased = user.erased_at is not None
    return {"type": str(user.user_type), "active": user.is_active, "erased": is_erased}


async def _page(
    request: Request,
    person: Person,
    user_id: uuid.UUID,
    *,
    problem: ExceptionWithErrorType | None = None,
    form: Form | None = None,
) -> Response:
    def work(session: Session) -> User:
        user = get_user(session, user_id)
        record(session, person, "users.see", user_id=user_id, target="change")
        return user

    user = await run_in_async_database_transaction(work)
    return render(
        request,
        person,
        "user_change.html",
        problem=problem,
        form=form,
        user=user,
        types=TYPES,
        may_erase=person.may(Permission.USERS_ERASE) and user.erased_at is None,
    )
