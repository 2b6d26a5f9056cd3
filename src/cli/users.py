"""`flashslides user …`: find and change accounts."""

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli.choices import UserTypeName
from src.cli.group_lists import read_everybodys
from src.cli.output import AsJson, confirm, print_record, say
from src.cli.pages import Cursor, Limit, print_page
from src.cli.reach import get_settings, run_operation, run_reading
from src.cli.replicas import FromReplica, answered_by, reader_in_reach, say_who_answered
from src.cli.whose import routed_to_newcomer, routed_to_user
from src.common.exceptions import Invalid, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from src.common.accounts.search import FoundUser, UserFilter
    from src.common.models.user import User

app = typer.Typer(
    help="Users: create, show, list, find, token, set-type, activate, deactivate, erase.",
    no_args_is_help=True,
)


def _plausible(email: str) -> str:
    from src.common.accounts.rules import storable
    from src.common.models.user import is_plausible_email

    if email != storable(email) or not is_plausible_email(email):
        raise Invalid(f"email: {email!r} is no e-mail address", "VALIDATION_ERROR")
    return email


def _storable(name: str | None) -> str | None:
    from src.common.accounts.rules import storable

    if name is not None and name != storable(name):
        raise Invalid("name: must be text", "VALIDATION_ERROR")
    return name


Email = Annotated[str, typer.Argument(help="The user's e-mail.", callback=_plausible)]
EmailOrId = Annotated[str, typer.Argument(help="The user's e-mail or id.")]


@app.command("create")
def create(
    email: Email,
    *,
    first_name: Annotated[str | None, typer.Option(help="First name.", callback=_storable)] = None,
    last_name: Annotated[str | None, typer.Option(help="Last name.", callback=_storable)] = None,
    user_type: Annotated[UserTypeName, typer.Option(help="What the user may do.")] = "individual",
    as_json: AsJson = False,
) -> None:
    """Create a user."""
    from src.common.accounts import operations as accounts

    user = run_operation(
        get_settings(),
        lambda session: accounts.create_user(
            session,
            email=email,
            first_name=first_name,
            last_name=last_name,
            user_type=user_type,
        ),
        route=routed_to_newcomer(),
    )
    print_record(_shown(user), as_json=as_json)


@app.command("show")
def show(user: EmailOrId, *, as_json: AsJson = False) -> None:
    """Show a user and their balance."""
    found = run_reading(
        get_settings(), lambda session: find_user(session, user), route=routed_to_user(user)
    )
    print_record(_shown(found), as_json=as_json)


@app.command("list")
def list_users(
    *,
    with_debt: Annotated[
        bool, typer.Option("--with-debt", help="Only users who owe credits.")
    ] = False,
    with_open_holds: Annotated[
        bool, typer.Option("--with-open-holds", help="Only users who have open holds.")
    ] = False,
    inactive: Annotated[
        bool, typer.Option("--inactive", help="Only users who are deactivated.")
    ] = False,
    never_bought: Annotated[
        bool, typer.Option("--never-bought", help="Only users without a purchase.")
    ] = False,
    limit: Limit = 20,
    cursor: Cursor = None,
    from_replica: FromReplica = False,
    as_json: AsJson = False,
) -> None:
    """List users, newest first."""
    from src.common.accounts.search import UserFilter

    wanted = UserFilter(
        with_debt=with_debt,
        with_open_holds=with_open_holds,
        inactive=inactive,
        never_bought=never_bought,
    )
    _print_found(wanted, cursor, limit, from_replica=from_replica, as_json=as_json)


@app.command("find")
def find(
    text: Annotated[
        str,
        typer.Argument(
            help="A part of an e-mail, a name or a company. Or a whole id: a user's, an order's, "
            "a purchase's, or of Stripe's customer, session, PaymentIntent, invoice, refund …"
        ),
    ],
    *,
    limit: Limit = 20,
    cursor: Cursor = None,
    from_replica: FromReplica = False,
    as_json: AsJson = False,
) -> None:
    """Find users by a part of their e-mail, name or company, newest first.

    Capital and small letters count as the same. An id finds its user.

    One or two characters are looked for in so many users at a time: the next page goes on there.
    """
    from src.common.accounts.search import UserFilter

    _print_found(UserFilter(text=text), cursor, limit, from_replica=from_replica, as_json=as_json)


@app.command("token")
def token(
    email: Email,
    *,
    expires_in_minutes: Annotated[
        int, typer.Option(min=1, max=60 * 24 * 365, help="How long it is valid.")
    ] = 60,
) -> None:
    """Print a token with which this user signs in. With ENV=local only.

    If no user has this e-mail, `POST /api/v1/authenticate-jwt` with the token creates one.
    """
    from src.cli.development import issue_token
    from src.common.accounts.queries import find_user_by_email

    settings = get_settings()
    try:
        user = run_reading(
            settings,
            lambda session: find_user_by_email(session, email),
            route=routed_to_user(email),
        )
    except NotFound:
        user = None
    say(
        issue_token(
            settings,
            user_id=user.user_id if user else uuid.uuid4(),
            email=user.email if user else email,
            lifetime=dt.timedelta(minutes=expires_in_minutes),
        )
    )


@app.command("set-type")
def set_type(user: EmailOrId, user_type: UserTypeName, *, as_json: AsJson = False) -> None:
    """Change what a user may do.

    An `admin` may read every user, and has every scope of API keys.
    """
    from src.common.accounts import operations as accounts

    _change(
        user,
        as_json,
        lambda session, user_id: accounts.set_user_type(session, user_id, user_type),
    )


@app.command("activate")
def activate(user: EmailOrId, *, as_json: AsJson = False) -> None:
    """Let a user sign in and spend again."""
    from src.common.accounts import operations as accounts

    _change(
        user,
        as_json,
        lambda session, user_id: accounts.set_active(session, user_id, is_active=True),
    )


@app.command("deactivate")
def deactivate(user: EmailOrId, *, as_json: AsJson = False) -> None:
    """Keep a user from signing in, spending and opening holds.

    What they pay for is still credited.
    """
    from src.common.accounts import operations as accounts

    _change(
        user,
        as_json,
        lambda session, user_id: accounts.set_active(session, user_id, is_active=False),
    )


@app.command("erase")
def erase(
    user: EmailOrId,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a person's data: profile, e-mail, preferences, metadata, Stripe customer.

    Journal and purchases stay, without the person. The answer says what credits were left.
    """
    if not yes:
        confirm(f"Erase {user}? This cannot be undone")

    from src.common.accounts import operations as accounts
    from src.common.credits import queries

    def work(session: "Session") -> dict[str, Any]:
        erased = accounts.erase_user(session, find_user(session, user).user_id)
        left = queries.balance(session, erased.user_id)
        return _shown(erased) | {
            "credits_left": {"balance": left.balance, "held": left.held, "debt": left.debt}
        }

    print_record(run_operation(get_settings(), work, route=routed_to_user(user)), as_json=as_json)


def _change(
    user: str,
    as_json: bool,  # noqa: FBT001  private
    change: "Callable[[Session, uuid.UUID], User]",
) -> None:
    changed = run_operation(
        get_settings(),
        lambda session: change(session, find_user(session, user).user_id),
        route=routed_to_user(user),
    )
    print_record(_shown(changed), as_json=as_json)


def find_user(session: "Session", email_or_id: str) -> "User":
    """The user with this e-mail or id.

    Raises:
        NotFound: USER_NOT_FOUND.
    """
    from src.common.accounts import queries
    from src.common.accounts.rules import storable

    try:
        user_id = uuid.UUID(email_or_id)
    except ValueError:
        is_storable = email_or_id == storable(email_or_id)
        user = queries.find_user_by_email(session, email_or_id) if is_storable else None
        if user is None:
            raise NotFound(f"No user has the e-mail {email_or_id}", "USER_NOT_FOUND") from None
        return user
    return queries.get_user(session, user_id)


def id_of(user: str) -> uuid.UUID:
    """The id of the user of this e-mail or id, as the primary knows them."""
    from src.common.database import read_from_database

    with routed_to_user(user):
        return read_from_database(lambda session: find_user(session, user).user_id)


def _print_found(
    wanted: "UserFilter", cursor: str | None, limit: int, *, from_replica: bool, as_json: bool
) -> None:
    from src.common.accounts.search import merge_found, search_users

    with reader_in_reach(from_replica=from_replica) as reader:
        found = read_everybodys(
            reader,
            search_users,
            wanted,
            merge=lambda pages: merge_found(pages, limit),
            cursor=cursor,
            limit=limit,
        )
    say_who_answered(found.read_from)
    page = found.value
    empty = "No user is as asked for."
    if page.looked_back_to is not None:
        empty = f"No user who came since {page.looked_back_to:%Y-%m-%d} is as asked for."
    print_page(
        list(map(_row, page.items)),
        page.next_cursor,
        as_json=as_json,
        empty=empty,
        **answered_by(found.read_from),
    )


def _row(found: "FoundUser") -> dict[str, Any]:
    user = found.user
    names = (user.first_name, user.last_name)
    return {
        "user_id": user.user_id,
        "email": user.email,
        "name": " ".join(name for name in names if name),
        "company": user.preferences.get("company"),
        "credits_balance": user.credits_balance,
        "debt": found.debt,
        "is_active": user.is_active,
        "stripe_customer_id": user.stripe_customer_id,
        "created_at": user.created_at,
    }


def _shown(user: "User") -> dict[str, Any]:
    return {
        "user_id": user.user_id,
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "credits_balance": user.credits_balance,
        "user_type": user.user_type,
        "is_active": user.is_active,
        "stripe_customer_id": user.stripe_customer_id,
        "preferences": dict(user.preferences),
        "last_login_at": user.last_login_at,
        "created_at": user.created_at,
        "erased_at": user.erased_at,
    }
