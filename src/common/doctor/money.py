"""Checks of money and credits: books, triggers, role, payments, reconciliation, debts."""

import datetime as dt
import re
from collections.abc import Iterable, Mapping

from sqlalchemy import func, select, text

from src.common.approvals.queries import count_waiting
from src.common.credits.verification.drift import drift
from src.common.database_settings import LedgerTriggers
from src.common.doctor.checks import (
    Check,
    Finding,
    Needs,
    count,
    duration,
    fail,
    ok,
    psql,
    skipped,
    warn,
)
from src.common.doctor.context import Context
from src.common.models import approval_triggers, console_action, notice_triggers
from src.common.models.credit_hold import CreditDebt
from src.common.models.ledger_triggers import CREATE_FUNCTIONS, CREATE_TRIGGERS
from src.common.models.ledger_triggers_at_commit import REPLACED
from src.common.models.ledger_triggers_chain import CREATE_CHAIN, CREATE_CHAIN_FUNCTION
from src.common.models.reconciliation import Reconciliation
from src.common.postgres.ledger_triggers_form import is_in_place
from src.common.postgres.migrations import describe_revision
from src.common.postgres.runtime_role import privileges_on, schema_open_to_public
from src.common.postgres.sides import Side, looked_up_in_public
from src.common.purchases.reconciliations import (
    find_cut_off,
    newest_age_seconds,
    newest_drift,
    of_accounts,
)
from src.common.purchases.uncredited import count_unlisted
from src.common.purchases.unmatched import count_noted

DRIFT_AGE_WARN_SECONDS = 86_400.0
"""Everybody's books are to be verified at least so often."""
APPROVAL_AGE_WARN_SECONDS = 86_400.0
"""Somebody is to have decided about a request within this time."""
REFUND_AGE_WARN_SECONDS = 900.0
"""So long after the consent Stripe is to have answered."""
RECONCILIATION_INTERVALS_WARN = 3
"""After so many intervals without a finished run something is wrong."""
_TRIGGER = re.compile(
    r"CREATE (?:CONSTRAINT )?TRIGGER (?P<name>\w+) .*? ON (?P<table>\w+)", re.DOTALL
)
TRIGGERS = {
    (found["name"], found["table"]): found.string
    for found in map(
        _TRIGGER.match,
        (
            *CREATE_TRIGGERS,
            *CREATE_CHAIN,  # one of them in place of one of those
            *approval_triggers.CREATE_TRIGGERS,
            *console_action.CREATE_GUARD,
            *console_action.CREATE_PRESENCE,
            *notice_triggers.CREATE_TRIGGERS,
        ),
    )
    if found is not None
}
"""Those of the ledger, of approvals, of the audit trail and of notices: by name and table, the
statement that makes it."""

_FUNCTION = re.compile(
    r"FUNCTION (?:@here\.)?(?P<name>\w+)\(.*? AS \$\$(?P<body>.*?)\$\$", re.DOTALL
)
MADE = (
    *CREATE_FUNCTIONS,
    CREATE_CHAIN_FUNCTION,
    approval_triggers.CREATE_FUNCTION,
    console_action.CREATE_GUARD[0],
    console_action.CREATE_PRESENCE[0],
    *notice_triggers.CREATE_FUNCTIONS,
)
FUNCTIONS = {
    found["name"]: found["body"] for found in map(_FUNCTION.search, MADE) if found is not None
}
"""What the triggers run: by name, the body, in which `@here` is the schema of our tables."""
_MAKE_FUNCTIONS = (
    'python -c "from src.common.doctor.money import MADE as made; '
    "print(*made, sep=';', end=';')\" | flashslides db psql && flashslides verify"
)

_TAKE_FUNCTIONS = "make them as they are in another group of users, then flashslides verify"
_RUN = re.compile(r"EXECUTE FUNCTION (\w+)")
_BODIES = text("""
    SELECT proname, prosrc, quote_ident(current_schema()) FROM pg_proc
    WHERE pronamespace = current_schema()::regnamespace AND proname = ANY (:names)
""")
_STANDING = text("""
    SELECT tgname, relname, tgenabled FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE NOT tgisinternal AND relnamespace = current_schema()::regnamespace
""")
_ROLE = text("""
    SELECT current_user, rolsuper,
           coalesce(pg_has_role(current_user, (SELECT relowner FROM pg_class
             WHERE oid = to_regclass('credit_entries')), 'MEMBER'), false)
    FROM pg_roles WHERE rolname = current_user
""")
_MAY = text("""
    SELECT name, privilege FROM unnest(CAST(:names AS text[])) AS name,
      unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) AS privilege
    WHERE has_table_privilege(to_regclass(name), privilege)
""")
_MAY_COLUMNS = text("""
    SELECT name, privilege, attname FROM unnest(CAST(:names AS text[])) AS name
    JOIN pg_attribute ON attrelid = to_regclass(name) AND attnum > 0 AND NOT attisdropped,
      unnest(ARRAY['INSERT', 'UPDATE']) AS privilege
    WHERE NOT has_table_privilege(attrelid, privilege)
      AND has_column_privilege(attrelid, attnum, privilege)
""")
_WITHOUT_COLUMN = re.compile(r" \(\w+\)")
_PRIVILEGE = re.compile(r"(?P<privilege>[A-Z]+)(?: \((?P<columns>[^)]*)\))?")


def _drift(context: Context) -> Finding:
    """Users whose books the workers found to differ, and how old that knowledge is."""
    with context.looking() as session:
        found = drift(session)
    if found.users:
        return fail(
            f"The books of {count(found.users, 'user')} differ from their journal.",
            "flashslides verify",
        )
    if not context.settings.credits_verify_interval_seconds:
        return warn(
            "CREDITS_VERIFY_INTERVAL_SECONDS is 0: no worker verifies the books.",
            "flashslides verify",
        )
    if found.age_seconds is None:
        return warn("No worker has gone through all books yet.", "flashslides verify")
    seen = f"No books differ; all were verified {duration(found.age_seconds)} ago."
    if found.age_seconds <= DRIFT_AGE_WARN_SECONDS:
        return ok(seen)
    return warn(
        f"{seen} That is long.",
        "flashslides doctor worker; then raise CREDITS_VERIFY_SLICE_USERS",
    )


def _triggers(context: Context) -> Finding:
    """Whether the triggers are there, enabled for this session too, and do their work."""
    is_ours = describe_revision(next(iter(context.revisions), None)) is None
    form = context.settings.database_ledger_triggers
    with context.looking() as session:
        found = session.execute(_BODIES, {"names": list(FUNCTIONS)})
        bodies = {name: (body, here) for name, body, here in found}
        standing = {(name, table): enabled for name, table, enabled in session.execute(_STANDING)}
        role = session.execute(text("SHOW session_replication_role")).scalar_one()
        is_chosen = not context.sees_users or is_in_place(session.connection(), form)
    wanted = {key: made for key, made in TRIGGERS.items() if context.has_table(key[1])}
    functions = _functions_of(wanted.values())
    if is_ours and (others := sorted(name for name in functions if not _is_as_made(name, bodies))):
        return fail(
            f"Not as this release makes them: the functions {', '.join(others)}.",
            _MAKE_FUNCTIONS if context.sees_everybodys else _TAKE_FUNCTIONS,
        )
    if missing := sorted(wanted.keys() - standing.keys()):
        named = ", ".join(f"{name} on {table}" for name, table in missing)
        statements = "; ".join(" ".join(TRIGGERS[key].split()) for key in missing)
        return fail(f"Not there: {named}.", f"{psql(statements)} && flashslides verify")
    in_use = sorted(wanted.keys() - {*(REPLACED if form is LedgerTriggers.COMMIT else ())})
    off = [key for key in in_use if standing[key] not in ("O", "A")]
    if off:
        named = ", ".join(f"{name} on {table}" for name, table in off)
        statements = "; ".join(f"ALTER TABLE {table} ENABLE TRIGGER {name}" for name, table in off)
        return fail(f"Switched off: {named}.", f"{psql(statements)} && flashslides verify")
    if is_ours and not is_chosen:
        return fail(
            f"They do not look at each {form}, as DATABASE_LEDGER_TRIGGERS says, or not all do.",
            "flashslides db upgrade && flashslides verify",
        )
    if role == "replica":
        return fail(
            "session_replication_role is replica: no trigger runs for this role.",
            psql("ALTER ROLE CURRENT_USER RESET session_replication_role"),
        )
    return ok(
        f"All {len(in_use)} are there and enabled, look at each {form}, and their functions are "
        "the release's."
    )


def _functions_of(triggers: Iterable[str]) -> list[str]:
    """What these triggers run, and what no trigger runs itself."""
    others = {*_RUN.findall(" ".join(TRIGGERS.values()))} - {*_RUN.findall(" ".join(triggers))}
    return [name for name in FUNCTIONS if name not in others]


def _is_as_made(name: str, bodies: Mapping[str, tuple[str, str]]) -> bool:
    """Whether a function is there, and its text is the models'."""
    body, here = bodies.get(name, ("", ""))
    return body == looked_up_in_public(FUNCTIONS[name].replace("@here", here), here)


def _runtime_role(context: Context) -> Finding:
    """Whether the service's role has the privileges it needs, and no others."""
    with context.looking() as session:
        role, is_superuser, is_owner = session.execute(_ROLE).one()
        open_schema = schema_open_to_public(session.connection())
        needed = privileges_on(session.connection())
        names = {"names": list(needed)}
        has = {f"{privilege} on {table}" for table, privilege in session.execute(_MAY, names)} | {
            f"{privilege} ({column}) on {table}"
            for table, privilege, column in session.execute(_MAY_COLUMNS, names)
        }
    grant = f"flashslides db grant-runtime {role}"
    if is_superuser or is_owner:
        what = "a superuser" if is_superuser else "the tables' owner"
        if context.settings.is_local:
            return ok(f"{role} is {what}, as is usual with ENV=local.")
        return warn(
            f"{role} is {what}, and could switch the ledger's triggers off.",
            "flashslides db grant-runtime flashslides_service, then set DATABASE_USER to that role",
        )
    wanted = _wanted(needed)
    enough = has | {each for each in wanted if _WITHOUT_COLUMN.sub("", each) in has}
    if missing := sorted(wanted - enough):
        return fail(f"{role} lacks {', '.join(missing)}.", grant)
    if besides := sorted(has - wanted):
        return warn(f"{role} has, and does not need, {', '.join(besides)}.", grant)
    if open_schema is not None:
        return warn(f"Everybody may create functions in schema {open_schema}.", grant)
    return ok(f"{role} has what it needs, and no more.")


def _wanted(needed: Mapping[str, str]) -> set[str]:
    """What the service's role needs: `SELECT on users`, `UPDATE (remaining) on credit_lots`."""
    wanted: set[str] = set()
    for table, privileges in needed.items():
        for found in _PRIVILEGE.finditer(privileges):
            columns: str | None = found["columns"]
            if columns is None:
                wanted.add(f"{found['privilege']} on {table}")
            else:
                wanted |= {
                    f"{found['privilege']} ({column.strip()}) on {table}"
                    for column in columns.split(",")
                }
    return wanted


def _unmatched_payments(context: Context) -> Finding:
    """Payments that nobody was credited for yet."""
    with context.looking() as session:
        found = count_noted(session) if context.sees_everybodys else 0
        found += count_unlisted(session) if context.sees_users else 0
    if found:
        return warn(
            f"{count(found, 'payment')} credited nobody.", "flashslides stripe unmatched list"
        )
    return ok("Every payment was credited or settled.")


def _approvals(context: Context) -> Finding:
    """Requests that wait for another person's consent, and refunds with it that wait for Stripe."""
    with context.looking() as session:
        waiting = count_waiting(session)
    if waiting.oldest_refund_seconds > REFUND_AGE_WARN_SECONDS:
        return warn(
            f"{count(waiting.refunds, 'refund')} with consent not answered by Stripe, one for "
            f"{duration(waiting.oldest_refund_seconds)}.",
            "flashslides doctor worker stripe; then flashslides credits refund --resume",
        )
    if not waiting.open:
        return ok("Nothing waits for another person's consent.")
    seen = (
        f"{count(waiting.open, 'request')} without a decision, the oldest for "
        f"{duration(waiting.oldest_seconds)}."
    )
    if waiting.oldest_seconds > APPROVAL_AGE_WARN_SECONDS:
        return warn(seen, "flashslides approvals list")
    return ok(seen)


def _reconciliation(context: Context) -> Finding:
    """When Stripe was last compared with our books, and what that left."""
    settings = context.settings
    accounts = settings.connected_accounts
    with context.looking() as session:
        since_at = session.scalars(
            select(Reconciliation.since_at)
            .where(Reconciliation.status == "finished", of_accounts(accounts))
            .order_by(Reconciliation.started_at.desc())
            .limit(1)
        ).one_or_none()
        age = newest_age_seconds(session, accounts)
        left = newest_drift(session, accounts)
        mode = bool(settings.stripe_livemode)
        cut_off = find_cut_off(session, of_accounts(accounts), livemode=mode)
    repair = "flashslides stripe reconcile --since {:%Y-%m-%d} --repair"
    if since_at is None:
        if settings.stripe_secret_key is None:
            return skipped("There is no Stripe key, and nothing was ever compared.")
        three_days_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
        return warn("Nothing was ever compared with Stripe.", repair.format(three_days_ago))
    if age is None:
        return warn(
            "One of our Stripe accounts was never compared, our own or one of "
            f"STRIPE_CONNECTED_ACCOUNTS; the newest run of any looked back to {since_at:%Y-%m-%d}.",
            repair.format(since_at),
        )
    which = " of the account it is longest for" if accounts else ""
    seen = f"The last comparison with Stripe{which} ended {duration(age)} ago"
    if left:
        return warn(
            f"{seen}; the newest left {count(left, 'difference')}.", repair.format(since_at)
        )
    interval = settings.stripe_reconcile_interval_seconds
    if not interval:
        return warn(
            f"{seen}; STRIPE_RECONCILE_INTERVAL_SECONDS is 0, so no worker does it.",
            repair.format(since_at),
        )
    if age > RECONCILIATION_INTERVALS_WARN * interval:
        if settings.stripe_secret_key is None:
            return skipped(f"There is no Stripe key now. {seen}.")
        return warn(f"{seen}. That is long.", "flashslides doctor worker stripe")
    unfinished = "; a later run was cut off and will be taken up" if cut_off is not None else ""
    return ok(f"{seen}, and nothing is left{unfinished}.")


def _debts(context: Context) -> Finding:
    """Credits that refunds and disputes could not take back any more."""
    owed = CreditDebt.outstanding >= 1  # as the index has it
    with context.looking() as session:
        number, total = session.execute(
            select(func.count(), func.coalesce(func.sum(CreditDebt.outstanding), 0)).where(owed)
        ).one()
    if not number:
        return ok("Nobody owes credits.")
    return ok(
        f"{count(number, 'payment')} leave {count(total, 'credit')} owed. Credits that come in "
        "repay them by themselves."
    )


CHECKS = (
    Check(
        "drift",
        _drift,
        Needs.TABLES,
        "A balance that its journal does not explain is wrong, and nobody can say since when.",
        may_lag=True,
    ),
    Check(
        "triggers",
        _triggers,
        Needs.TABLES,
        "They refuse books that do not balance, whoever writes them; without them nothing does.",
        sides=tuple(Side),
    ),
    Check(
        "runtime-role",
        _runtime_role,
        Needs.TABLES,
        "A role that owns the tables can rewrite history; one without a privilege cannot serve.",
        sides=(Side.USERS,),
    ),
    Check(
        "unmatched-payments",
        _unmatched_payments,
        Needs.TABLES,
        "Somebody has paid and waits for credits.",
        may_lag=True,
        sides=tuple(Side),
    ),
    Check(
        "approvals",
        _approvals,
        Needs.TABLES,
        "What nobody decides about expires, and somebody waits for credits or money.",
        may_lag=True,
        sides=(Side.USERS,),
    ),
    Check(
        "reconciliation",
        _reconciliation,
        Needs.TABLES,
        "It finds what webhooks lost: payments, refunds, disputes.",
        may_lag=True,
    ),
    Check(
        "debts",
        _debts,
        Needs.TABLES,
        "They are what refunds and disputes have cost so far; many may mean fraud.",
        may_lag=True,
        sides=(Side.USERS,),
    ),
)
