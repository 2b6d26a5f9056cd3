"""`flashslides db chain`: give entries from before there were hashes theirs."""

from dataclasses import asdict

from src.cli.output import AsJson, print_record, progress, say
from src.cli.reach import get_settings, migrated_database
from src.cli.whose import refuse_where_sharded


def chain(*, as_json: AsJson = False) -> None:
    """Give every journal entry that has no hash its own, user after user.

    Run it once, as the owner of the tables, when no process of an older release is left. The
    service may run meanwhile. You may stop this command and run it again: it goes on where it was.
    At its end every entry has a hash, and the database takes none without.
    """
    from src.common.credits.chaining import Chaining, complete_chain
    from src.common.credits.verification.verify import count_users
    from src.common.database import SessionLocal, read_from_database

    refuse_where_sharded("giving entries their hashes")
    done = Chaining()
    with migrated_database(get_settings()), progress() as bars:
        looking = bars.add_task("Users looked at", total=read_from_database(count_users))
        giving = bars.add_task("Entries given a hash", total=None)
        for done in complete_chain(SessionLocal):
            bars.update(looking, completed=done.users)
            bars.update(giving, completed=done.entries)
    print_record(asdict(done), as_json=as_json)
    if not as_json:
        say("Every entry has its hash. Next: flashslides verify")
