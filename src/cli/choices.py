"""What the command line offers and allows, said again without loading what decides it.

Help and completion are made from these alone; a test compares each with what it repeats.
"""

from typing import Literal

UserTypeName = Literal["admin", "member", "guest", "individual"]
PurchaseStateName = Literal["uncredited", "disputed", "refunded", "partly_refunded", "paid"]
ApprovalStatusName = Literal["open", "expired", "consented", "refused", "withdrawn"]
ConsoleRoleName = Literal["viewer", "support", "finance", "admin"]
HoldStatusName = Literal["open", "captured", "released", "expired"]
ReportNameName = Literal[
    "movements", "liability", "revenue", "sales", "payments", "users", "journal"
]
ReportFormatName = Literal["table", "csv", "json", "xlsx", "beancount", "hledger"]
ReportByName = Literal["entry", "day", "week", "month"]
NoticeTypeName = Literal[
    "credits.granted",
    "credits.spent",
    "credits.low",
    "credits.exhausted",
    "credits.expiring",
    "credits.reversed",
    "credits.debt_opened",
    "credits.debt_settled",
    "purchase.credited",
    "purchase.refunded",
    "purchase.disputed",
    "hold.expired",
]
NoticeStatusName = Literal["pending", "delivered", "dead"]
SCOPES = (
    "users:read",
    "credits:read",
    "credits:spend",
    "credits:grant",
    "payments:refund",
    "reports:read",
)
STRIPE_EVENT_STATUSES = ("received", "processed", "ignored", "unmatched", "failed", "dead")
AMOUNT_MAX = 2**31 - 1
OPENINGS_BATCH_SIZE = 500
OFFLINE_STRIPE_PORT = 12_111
WORKER_INTERVAL_SECONDS = 5.0
APPLICATION = "src.api.src.main:app"
"""What `flashslides serve` serves by default."""
