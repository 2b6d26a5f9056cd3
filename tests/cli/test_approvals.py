"""`flashslides approvals`: one account asks, another decides, whatever the options are."""

import asyncio
import datetime as dt
import uuid
from collections.abc import Sequence

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.cli.work import settle_refund_requests
from src.common.accounts.api_keys import find_valid_api_key
from src.common.credits.operations import execute
from src.common.models.approval import Approval
from src.common.models.refund_request import RefundRequest
from src.common.models.user import User
from src.common.settings import get_settings
from src.offline_stripe import Trouble, TroubleKind
from tests.cli.conftest import RunAs, RunCommand
from tests.cli.test_stripe import store as take_in
from tests.credits.books import booked_balance, grant, open_hold
from tests.stripe.loop import Loop, only_purchase
from tests.stripe.payments import make_event, make_session


@pytest.fixture
def ada(db: Session, run_as: RunAs, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's id, where commands obey the rule; it is ada who runs them."""
    monkeypatch.setenv("APPROVALS_REQUIRED", "true")
    monkeypatch.setenv("APPROVALS_CREDITS_ABOVE", "100")
    monkeypatch.setenv("APPROVALS_REFUND_CENTS_ABOVE", "100")
    get_settings.cache_clear()
    run_as("ada")
    user = User(email="user@example.com", password_hash="x")
    db.add(user)
    db.commit()
    return str(user.user_id)


def ask(flashslides: RunCommand, user: str, *options: str) -> str:
    """The id of a request for 500 credits."""
    asked = flashslides("credits", "grant", user, "500", "--reference", "sorry", "--json", *options)
    assert asked.exit_code == 5, asked.err
    assert asked.json["status"] == "asked"
    approval_id: str = asked.json["approval_id"]
    assert f"flashslides approvals consent {approval_id}" in asked.err
    return approval_id


def test_above_the_limit_another_account_consents(
    db: Session, flashslides: RunCommand, ada: str, run_as: RunAs
) -> None:
    """The exit code says that nothing was done; then it is done once, and the lists say so."""
    approval_id = ask(flashslides, ada)
    assert booked_balance(db, uuid.UUID(ada)) == 0
    [listed] = flashslides("approvals", "list", "--json").json["items"]
    assert (listed["approval_id"], listed["requester"]) == (approval_id, "system:cli:ada")
    own = flashslides("approvals", "consent", approval_id)
    assert (own.exit_code, "APPROVAL_IS_OWN" in own.err) == (4, True)
    run_as("grace")
    shown = flashslides("approvals", "show", approval_id, "--json").json
    assert shown["preview"]["result"]["balance"] == 500
    for _ in range(2):
        done = flashslides("approvals", "consent", approval_id, "--note", "fine", "--json")
        assert (done.exit_code, done.json["status"], done.json["entry_seq"]) == (0, "consented", 1)
        assert (done.json["decider"], done.json["note"]) == ("system:cli:grace", "fine")
    assert booked_balance(db, uuid.UUID(ada)) == 500
    assert "No request is open." in flashslides("approvals", "list").out
    consented = flashslides("approvals", "list", "--status", "consented", "--user", ada, "--json")
    assert [each["approval_id"] for each in consented.json["items"]] == [approval_id]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("grant", "101"), "--reference"),
        (("adjust", "101"), "--reason"),
    ],
)
def test_up_to_the_limit_it_is_done_at_once(
    db: Session, flashslides: RunCommand, ada: str, command: Sequence[str], reason: str
) -> None:
    """One more is asked for; `--yes` is about CREDITS_MANUAL_LIMIT and changes nothing here."""
    name, _ = command
    given = flashslides("credits", name, ada, "100", reason, "sorry")
    assert given.exit_code == 0, given.err
    over = flashslides("credits", name, ada, "1", reason, "sorry", "--yes")
    assert over.exit_code == 5
    assert booked_balance(db, uuid.UUID(ada)) == 100


def test_a_release_is_asked_for_as_a_gift_is(
    db: Session, flashslides: RunCommand, ada: str, run_as: RunAs
) -> None:
    """Above the limit, with a reason; the list says how much."""
    user_id = uuid.UUID(ada)
    execute(db, [grant(user_id, 200), open_hold(user_id, 101)])
    release = ("credits", "holds", "release", ada, "2", "--json")
    assert flashslides(*release[:-1], "--dry-run", "--json").json["takes_consent"] is True
    without_reason = flashslides(*release)
    assert (without_reason.exit_code, "reason: this takes" in without_reason.err) == (2, True)
    asked = flashslides(*release, "--reason", "the renderer died")
    assert asked.exit_code == 5, asked.err
    run_as("grace")
    [listed] = flashslides("approvals", "list", "--json").json["items"]
    assert listed["command"] == {
        "operation": "release",
        "version": 1,
        "hold_seq": 2,
        "amount": 101,
    }
    done = flashslides("approvals", "consent", listed["approval_id"], "--json")
    assert (done.exit_code, done.json["entry_seq"]) == (0, 3)
    assert booked_balance(db, user_id) == 200


def test_a_dry_run_says_that_it_would_be_asked_for(flashslides: RunCommand, ada: str) -> None:
    """And asks for nothing."""
    for amount, takes_consent in (("100", False), ("101", True)):
        run = ("credits", "grant", ada, amount, "--dry-run")
        assert flashslides(*run, "--json").json["takes_consent"] is takes_consent
        assert ("another person has to consent" in flashslides(*run).out) is takes_consent
    assert flashslides("approvals", "list", "--json").json["items"] == []


def test_without_the_setting_commands_are_as_ever(
    db: Session, flashslides: RunCommand, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may run them gives what they say."""
    monkeypatch.setenv("APPROVALS_REQUIRED", "false")
    get_settings.cache_clear()
    assert flashslides("credits", "grant", ada, "500").exit_code == 0
    assert booked_balance(db, uuid.UUID(ada)) == 500


def test_the_same_key_finds_the_request_again(flashslides: RunCommand, ada: str) -> None:
    """Whoever was cut off runs the command again."""
    assert ask(flashslides, ada, "--key", "gift") == ask(flashslides, ada, "--key", "gift")


@pytest.mark.parametrize("is_required", ["true", "false"])
def test_the_key_of_what_was_consented_to_gives_nothing_again(
    db: Session,
    flashslides: RunCommand,
    ada: str,
    run_as: RunAs,
    monkeypatch: pytest.MonkeyPatch,
    is_required: str,
) -> None:
    """Also once the rule is not in force any more: the command says what was done."""
    approval_id = ask(flashslides, ada, "--key", "gift")
    run_as("grace")
    assert flashslides("approvals", "consent", approval_id).exit_code == 0
    run_as("ada")
    monkeypatch.setenv("APPROVALS_REQUIRED", is_required)
    get_settings.cache_clear()
    grant = ("credits", "grant", ada, "500", "--reference", "sorry", "--key", "gift", "--json")
    again = flashslides(*grant)
    assert (again.exit_code, again.json["replayed"], again.json["seq"]) == (0, True, 1)
    assert booked_balance(db, uuid.UUID(ada)) == 500


def test_it_is_refused_or_withdrawn(flashslides: RunCommand, ada: str, run_as: RunAs) -> None:
    """By another, and by whoever asked; neither is done any more, and `show` says by whom."""
    first, second = ask(flashslides, ada), ask(flashslides, ada)
    assert flashslides("approvals", "refuse", first).exit_code == 4
    withdrawn = flashslides("approvals", "withdraw", first, "--json").json
    assert (withdrawn["status"], withdrawn["decider"]) == ("withdrawn", "system:cli:ada")
    run_as("grace")
    assert flashslides("approvals", "withdraw", second).exit_code == 4
    refused = flashslides("approvals", "refuse", second, "--note", "why?", "--json").json
    assert (refused["status"], refused["note"]) == ("refused", "why?")
    for approval_id in (first, second):
        late = flashslides("approvals", "consent", approval_id)
        assert (late.exit_code, "APPROVAL_DECIDED" in late.err) == (4, True)
        assert flashslides("approvals", "show", approval_id, "--json").json["preview"] is None


def test_show_says_what_consent_would_be_refused_with(
    flashslides: RunCommand, ada: str, run_as: RunAs
) -> None:
    """Before anybody consents."""
    flashslides("credits", "grant", ada, "100")
    took = flashslides("credits", "adjust", ada, "-100", "--reason", "a test")
    assert took.exit_code == 0
    run_as("mary")
    flashslides("credits", "grant", ada, "100")
    run_as("ada")
    asked = flashslides("credits", "adjust", ada, "-100", "--reason", "a test", "--json")
    assert asked.exit_code == 5, asked.err
    run_as("grace")
    flashslides("credits", "spend", ada, "100")
    shown = flashslides("approvals", "show", asked.json["approval_id"])
    assert "Consent would be refused now: 100 credits are needed, 0 are available" in shown.out


def test_a_free_number_of_credits_for_a_payment_takes_two(
    db: Session, flashslides: RunCommand, ada: str, run_as: RunAs
) -> None:
    """500 are what the money buys, 100 may be given alone; `--yes` changes nothing."""
    event = make_event(make_session(uuid.UUID(ada), metadata={"package_id": "501"}), id="evt_1")
    take_in(event)
    name = event["data"]["object"]["id"]
    command = ("stripe", "unmatched", "resolve", name, "--note", "x", "--credit", "--yes")
    asked = flashslides(*command, "--credits", "601", "--key", "k", "--json")
    again = flashslides(*command, "--credits", "601", "--key", "k", "--json")
    assert (asked.exit_code, again.json["replayed"]) == (5, True)
    assert again.json["approval_id"] == asked.json["approval_id"]
    assert booked_balance(db, uuid.UUID(ada)) == 0
    run_as("grace")
    shown = flashslides("approvals", "show", asked.json["approval_id"])
    assert "Consent would credit" in shown.out
    done = flashslides("approvals", "consent", asked.json["approval_id"], "--json")
    assert (done.exit_code, done.json["entry_seq"]) == (0, 1)
    assert booked_balance(db, uuid.UUID(ada)) == 601


def test_where_nobody_has_to_ask_one_credits_what_one_says(
    db: Session, flashslides: RunCommand, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A developer alone."""
    event = make_event(make_session(uuid.UUID(ada), metadata={"package_id": "501"}), id="evt_1")
    take_in(event)
    monkeypatch.setenv("APPROVALS_REQUIRED", "false")
    get_settings.cache_clear()
    name = event["data"]["object"]["id"]
    command = ("stripe", "unmatched", "resolve", name, "--note", "x", "--credit", "--yes")
    assert flashslides(*command, "--credits", "601").exit_code == 0
    assert booked_balance(db, uuid.UUID(ada)) == 601


def test_a_key_that_moves_money_takes_two(
    db: Session, flashslides: RunCommand, ada: str, run_as: RunAs
) -> None:
    """It is printed when it is asked for, and works once another account has consented."""
    assert ada
    command = ("api-key", "create", "--scopes", "credits:grant", "--json")
    assert flashslides(*command).exit_code == 2
    asked = flashslides(*command, "--reason", "gifts by the shop")
    assert (asked.exit_code, asked.json["status"]) == (5, "asked")
    assert find_valid_api_key(db, asked.json["key"]) is None
    run_as("grace")
    shown = flashslides("approvals", "show", asked.json["approval_id"])
    assert "Consent would have the key work" in shown.out
    as_json = flashslides("approvals", "show", asked.json["approval_id"], "--json").json
    assert as_json["command"]["scopes"] == ["credits:grant"]
    assert "key_hash" not in as_json["command"]
    assert flashslides("approvals", "consent", asked.json["approval_id"]).exit_code == 0
    assert find_valid_api_key(db, asked.json["key"]) is not None
    spends = ("api-key", "create", "--scopes", "credits:spend", "--reason", "charges")
    assert flashslides(*spends).exit_code == 5
    assert flashslides("api-key", "create", "--scopes", "credits:read").exit_code == 0


def test_what_does_not_exist_has_its_own_exit_code(flashslides: RunCommand, ada: str) -> None:
    """As everywhere."""
    assert ada
    assert flashslides("approvals", "show", str(uuid.uuid4())).exit_code == 3


def test_a_refund_is_asked_for_and_gone_on_with_by_the_worker(
    db: Session, loop: Loop, flashslides: RunCommand, ada: str, run_as: RunAs
) -> None:
    """Stripe was away when there was consent."""
    loop.offline.pay(loop.session_of(loop.buy(uuid.UUID(ada))))
    loop.deliver(loop.webhooks())
    purchase = str(only_purchase(db).transaction_id)
    refund = ("credits", "refund", purchase, "--amount-cents", "300", "--reason", "sorry", "--json")
    approval_id = flashslides(*refund).json["approval_id"]
    run_as("grace")
    assert "Consent would pay back" in flashslides("approvals", "show", approval_id).out
    loop.offline.troubles.add(Trouble(TroubleKind.ERROR, times=50))
    assert flashslides("approvals", "consent", approval_id).exit_code == 75
    loop.offline.troubles.clear()
    db.execute(update(RefundRequest).values(created_at=func.now() - dt.timedelta(minutes=2)))
    db.commit()
    asyncio.run(settle_refund_requests())
    shown = flashslides("approvals", "show", approval_id, "--json").json
    [made] = loop.offline.account.all("refund")
    assert (shown["refund_status"], shown["refund_id"]) == ("accepted", made["id"])
    assert booked_balance(db, uuid.UUID(ada)) == 200
    assert db.scalars(select(Approval.status)).one() == "consented"
