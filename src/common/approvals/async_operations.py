"""`operations.py` for an `AsyncSession`: the same parameters, results and errors."""

from src.common.approvals import operations
from src.common.postgres.async_functions import for_async_session

execute_or_ask = for_async_session(operations.execute_or_ask)
request_or_ask = for_async_session(operations.request_or_ask)
consent = for_async_session(operations.consent)
refuse = for_async_session(operations.refuse)
withdraw = for_async_session(operations.withdraw)
