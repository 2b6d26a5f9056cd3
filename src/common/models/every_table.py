"""All tables: importing this module makes `Base.metadata` complete, its triggers included."""

from src.common.models import approval_triggers, notice_triggers
from src.common.models.anchor_checkpoint import AnchorCheckpoint
from src.common.models.anchor_part import AnchorPart
from src.common.models.anchor_sink import AnchorSink
from src.common.models.anchor_turn import AnchorTurn
from src.common.models.anchored_user import AnchoredUser
from src.common.models.api_key import ApiKey
from src.common.models.approval import Approval
from src.common.models.base import Base
from src.common.models.charged_request import ChargedRequest
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.console_action import ConsoleAction, create_guard_after_create_all
from src.common.models.console_session import ConsolePerson, ConsoleSession
from src.common.models.credit_booking_failure import CreditBookingFailure
from src.common.models.credit_entry import CreditEntry, CreditEntryMetadata, CreditPosting
from src.common.models.credit_hold import CreditDebt, CreditHold
from src.common.models.credit_ledger import CreditLedger
from src.common.models.credit_lot import CreditLot
from src.common.models.credit_notice import CreditNotice
from src.common.models.credit_verification import CreditVerification
from src.common.models.directory import DirectoryPayment, DirectoryUser
from src.common.models.group_turn import GroupTurn
from src.common.models.ledger_triggers import create_after_create_all
from src.common.models.notice_endpoint import NoticeEndpoint, NoticeSecret
from src.common.models.notice_endpoint_state import NoticeEndpointState
from src.common.models.reconciliation import Reconciliation
from src.common.models.refund_request import RefundRequest
from src.common.models.stripe_event import StripeEvent
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.models.user_group import UserGroup
from src.common.models.worker_failure import WorkerFailure
from src.common.models.worker_heartbeat import WorkerHeartbeat

create_after_create_all(Base.metadata)
approval_triggers.create_after_create_all(Base.metadata)
notice_triggers.create_after_create_all(Base.metadata)
create_guard_after_create_all(Base.metadata)

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
