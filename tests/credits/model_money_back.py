"""Money back in the model: rule 5 read aloud, one credit after the other."""

from collections import Counter
from fractions import Fraction
from math import floor

from tests.credits.model import Person
from tests.credits.model_values import Answer, MoneyBack, Payment

STAGES = {
    "refund": {"pending": 1, "succeeded": 2, "failed": 3, "canceled": 3},
    "dispute": {"inquiry": 1, "withdrawn": 2, "reinstated": 3},
    "credit_note": {"issued": 1, "void": 2},
}
"""A status only moves up."""
COUNTS = {"pending", "succeeded", "withdrawn", "issued"}


def hear(person: Person, said: MoneyBack) -> bool:
    """Note what Stripe says, if it is news: a later status, or the same one with more money."""
    stages = STAGES[said.kind]
    for number, known in enumerate(person.money_back):
        if known.name == said.name:
            if (stages[known.status], known.cents) >= (stages[said.status], said.cents):
                return False
            person.money_back[number] = said
            return True
    person.money_back.append(said)
    return True


def reallocate(person: Person, about: int | None) -> list[Answer]:
    """Bring settled books to what is to be back now; what was written down, perhaps nothing."""
    before = len(person.journal)
    owed_before = sum(person.debts.values())
    gives, owed = _allocate(person)
    debts_changed = False
    for payment in owed.keys() | person.debts.keys():
        if person.debts.get(payment, 0) != owed[payment]:
            person.debts[payment] = owed[payment]
            debts_changed = True
    live = [lot for lot in person.lots if lot.dies_at > person.last_instant]
    gains = [lot for lot in live if gives[lot.seq] < lot.taken]
    losses = [lot for lot in live if gives[lot.seq] > lot.taken]
    person.need_room(sum(lot.taken - gives[lot.seq] for lot in gains))
    for kind, lots in (("reinstatement", gains), ("clawback", losses)):
        for lot in lots:
            lot.left += lot.taken - gives[lot.seq]
            lot.taken = gives[lot.seq]
        if lots:
            person.note(kind, None, about)
    if debts_changed and len(person.journal) == before:
        shrank = sum(person.debts.values()) < owed_before
        person.note("reinstatement" if shrank else "clawback", None, about)
    return [_answer(person, seq) for seq in range(before + 1, len(person.journal) + 1)]


def has_gone_back(person: Person) -> bool:
    """Whether anything is known of any of the payments."""
    names = {payment.name for payment in person.payments}
    return any(each.payment in names for each in person.money_back)


def cause(person: Person, name: str) -> int | None:
    """The lot of the payment it is about; where nothing of that went back, of the only one."""
    if any(each.payment == name for each in person.money_back):
        payment = next(each for each in person.payments if each.name == name)
        return person.opening if payment.lot is None else payment.lot
    lots = [lot for lot, target in _targets(person).items() if target]
    return lots[0] if len(lots) == 1 else None


def to_be_back(payment: Payment, cents: int) -> int:
    """The share of the credits that the money bought which went back; half a credit is one."""
    if payment.paid_cents == 0:
        return 0
    back = Fraction(min(cents, payment.paid_cents), payment.paid_cents)
    return floor(payment.credits * back + Fraction(1, 2))


def _targets(person: Person) -> Counter[int]:
    """How many credits are to be back, by lot; all from before the ledger are one, the opening."""
    targets = Counter[int]()
    for payment in person.payments:
        lot = person.opening if payment.lot is None else payment.lot
        cents = sum(
            each.cents
            for each in person.money_back
            if each.payment == payment.name and each.status in COUNTS
        )
        if lot is not None:
            targets[lot] += to_be_back(payment, cents)
    return targets


def _allocate(person: Person) -> tuple[Counter[int], Counter[int]]:
    """How many credits each lot gives in all, and what is owed, by payment."""
    reach = Counter({lot.seq: lot.left + lot.taken for lot in person.lots})
    expired = Counter({lot.seq: lot.expired for lot in person.lots})
    person.forgiven = 0
    gives, missing, owed = Counter[int](), Counter[int](), Counter[int]()
    targets = _targets(person)
    if person.opening is not None and person.before < 0:
        targets[person.opening] -= person.before  # what was owed then, for ever
    for payment in targets.elements():
        if reach[payment]:
            reach[payment] -= 1
            gives[payment] += 1
        elif expired[payment]:
            expired[payment] -= 1
            person.forgiven += 1
        else:
            missing[payment] += 1
    # Dead lots first, then the burn order.
    givers = sorted(person.lots, key=lambda lot: (lot.dies_at > person.last_instant, lot.rank))
    for payment in sorted(missing.elements()):
        giver = next((lot for lot in givers if reach[lot.seq]), None)
        if giver is None:
            owed[payment] += 1
        else:
            reach[giver.seq] -= 1
            gives[giver.seq] += 1
    return gives, owed


def _answer(person: Person, seq: int) -> Answer:
    line = person.journal[seq - 1]
    return Answer(
        seq,
        line.kind,
        line.amount,
        captured=None,
        balance=person.balance,
        created_at=person.last_instant,
        expires_at=None,
        replayed=False,
    )
