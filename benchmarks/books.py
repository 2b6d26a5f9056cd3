"""What the database holds, and whether it is what a contestant said it wrote."""

from dataclasses import dataclass

import psycopg

from benchmarks.contestants.base import CREDITS

_READ = """
    SELECT (SELECT count(*) FROM transactions),
           (SELECT coalesce(sum(credits_added), 0)::bigint FROM transactions),
           (SELECT coalesce(sum(credits_balance), 0)::bigint FROM users),
           (SELECT count(*) FROM credit_entries),
           (SELECT coalesce(sum(amount), 0)::bigint FROM credit_entries),
           (SELECT coalesce(sum(remaining), 0)::bigint FROM credit_lots)
"""
_READ_OUT_OF_BALANCE = """
    SELECT count(*)
    FROM users
    LEFT JOIN (SELECT user_id, sum(credits_added) AS credits FROM transactions GROUP BY user_id)
              AS bought USING (user_id)
    LEFT JOIN (SELECT user_id, sum(amount) AS booked, count(*) AS entries
               FROM credit_entries GROUP BY user_id) AS journals USING (user_id)
    LEFT JOIN (SELECT user_id, sum(remaining) AS in_lots FROM credit_lots GROUP BY user_id)
              AS lots USING (user_id)
    WHERE credits_balance <> coalesce(credits, 0)
       OR credits_balance <> coalesce(booked, 0)
       OR credits_balance <> coalesce(in_lots, 0)
       OR credits_version <> coalesce(entries, 0)
"""


@dataclass(frozen=True)
class Books:
    """The sums that have to agree."""

    rows: int
    """Rows of `transactions`."""
    credits_added: int
    """Sum of `transactions.credits_added`."""
    balances: int
    """Sum of `users.credits_balance`."""
    entries: int
    """Rows of `credit_entries`."""
    credits_in_entries: int
    """Sum of `credit_entries.amount`."""
    credits_in_lots: int
    """Sum of `credit_lots.remaining`."""


class BooksDisagree(Exception):
    """The database does not hold what a contestant says it wrote; no figure may be shown."""


def read_books(connection: psycopg.Connection) -> Books:
    """Read the sums."""
    row = connection.execute(_READ).fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM has one row
    return Books(*row)


def check(before: Books, after: Books, acknowledged: int) -> None:
    """Compare what one contestant acknowledged with what it left in the database.

    Raises:
        BooksDisagree: naming the first sum that is off.
    """
    written = after.rows - before.rows
    if written != acknowledged:
        raise BooksDisagree(f"{acknowledged} operations were acknowledged, {written} rows written.")
    added = after.credits_added - before.credits_added
    if added != acknowledged * CREDITS:
        raise BooksDisagree(
            f"{acknowledged} operations of {CREDITS} credits were acknowledged, {added} credits "
            "added to transactions."
        )
    if after.credits_added != after.balances:
        raise BooksDisagree(
            f"Transactions hold {after.credits_added} credits, the users' balances "
            f"{after.balances}."
        )
    booked = after.entries - before.entries
    if booked != acknowledged:
        raise BooksDisagree(
            f"{acknowledged} operations were acknowledged, {booked} ledger entries written."
        )
    if not after.balances == after.credits_in_entries == after.credits_in_lots:
        raise BooksDisagree(
            f"The users' balances hold {after.balances} credits, the ledger's entries "
            f"{after.credits_in_entries}, its lots {after.credits_in_lots}."
        )


def check_each_user(connection: psycopg.Connection) -> None:
    """Compare every single user's balance with the user's own transactions, entries and lots.

    Beside what was bought these are the ledger's own sums (DESIGN §4 rule 9), read without its
    code: balance = Σ entries = Σ what is left in lots, and the version counts the entries.

    Raises:
        BooksDisagree: if any user has more or less.
    """
    row = connection.execute(_READ_OUT_OF_BALANCE).fetchone()
    assert row is not None  # noqa: S101  count(*) has one row
    if row[0]:
        raise BooksDisagree(
            f"{row[0]} users hold a balance that is not what their transactions, their ledger "
            "entries and their lots say."
        )
