"""The tables, one file each; `from src.common.models import Base` makes `Base.metadata` complete.

Whatever is asked of the package itself brings every table along. A table's own file
(`src.common.models.credit_lot`) brings only those that it refers to: most commands work with few,
and each takes SQLAlchemy a millisecond or two to map.
"""

from typing import TYPE_CHECKING, Any

# A user refers to its purchases by the model's name alone.
import src.common.models.transaction  # noqa: F401  # pyright: ignore[reportUnusedImport]

if TYPE_CHECKING:
    from src.common.models.every_table import (
        AnchorCheckpoint,
        AnchoredUser,
        AnchorPart,
        AnchorSink,
        AnchorTurn,
        ApiKey,
        Approval,
        Base,
        ChargedRequest,
        CheckoutOrder,
        ConsoleAction,
        ConsolePerson,
        ConsoleSession,
        CreditBookingFailure,
        CreditDebt,
        CreditEntry,
        CreditEntryMetadata,
        CreditHold,
        CreditLedger,
        CreditLot,
        CreditNotice,
        CreditPosting,
        CreditVerification,
        DirectoryPayment,
        DirectoryUser,
        GroupTurn,
        NoticeEndpoint,
        NoticeEndpointState,
        NoticeSecret,
        Reconciliation,
        RefundRequest,
        StripeEvent,
        StripeReversal,
        Transaction,
        UnmatchedPayment,
        User,
        UserGroup,
        WorkerFailure,
        WorkerHeartbeat,
    )

__all__ = [
    "AnchorCheckpoint",
    "AnchorPart",
    "AnchorSink",
    "AnchorTurn",
    "AnchoredUser",
    "ApiKey",
    "Approval",
    "Base",
    "ChargedRequest",
    "CheckoutOrder",
    "ConsoleAction",
    "ConsolePerson",
    "ConsoleSession",
    "CreditBookingFailure",
    "CreditDebt",
    "CreditEntry",
    "CreditEntryMetadata",
    "CreditHold",
    "CreditLedger",
    "CreditLot",
    "CreditNotice",
    "CreditPosting",
    "CreditVerification",
    "DirectoryPayment",
    "DirectoryUser",
    "GroupTurn",
    "NoticeEndpoint",
    "NoticeEndpointState",
    "NoticeSecret",
    "Reconciliation",
    "RefundRequest",
    "StripeEvent",
    "StripeReversal",
    "Transaction",
    "UnmatchedPayment",
    "User",
    "UserGroup",
    "WorkerFailure",
    "WorkerHeartbeat",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from src.common.models import every_table

        return getattr(every_table, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
