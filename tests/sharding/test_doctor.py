"""The doctor says what it cannot look at where groups of users have schemas."""

from src.common.doctor.catalogue import named
from src.common.doctor.checks import Needs, Status
from src.common.doctor.context import Context
from src.common.doctor.examination import examine
from src.local_postgres import ConnectionParameters


def test_no_check_of_tables_answers_for_one_group(groups: ConnectionParameters) -> None:
    """They are unknown, and say why; of the others none fails for it."""
    assert groups
    checks = named([])
    context = Context()
    try:
        found = {each.name: each for each in examine(checks, context)}
    finally:
        context.close()
    of_tables = {each.name for each in checks if each.needs is Needs.TABLES} | {"schema-drift"}
    assert {found[name].status for name in of_tables} == {Status.UNKNOWN}
    assert all("SHARDING=schemas" in found[name].seen for name in of_tables)
    seen = [each for name, each in found.items() if name not in of_tables]
    assert not [each for each in seen if "NOT_ROUTED" in each.seen or "g0001" in each.seen]
    assert found["migrations"].status is Status.OK
