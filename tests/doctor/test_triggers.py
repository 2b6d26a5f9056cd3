"""The ledger's triggers, as the doctor sees them and has them made again."""

from tests.doctor.system import System, asked


def test_the_next_step_makes_the_triggers_that_are_missing(system: System) -> None:
    """All of them; then the check is right again."""
    system.run("DROP TRIGGER users_kept ON users")
    system.run("DROP TRIGGER credit_lots_made ON credit_lots")
    before, _, rest = str(asked("triggers").next).partition('"')
    statements, _, after = rest.partition('"')
    assert (before, after) == ("flashslides db psql -c ", " && flashslides verify")
    for statement in statements.split(";"):
        system.run(statement)
    assert asked("triggers").status == "ok"
