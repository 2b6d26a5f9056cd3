"""`flashslides db chain`: give entries from before there were hashes theirs."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from src.cli.output import AsJson, print_record, progress, say
from src.cli.reach import get_settings, migrated_database
from src.cli.whose import sessions_of_all

if TYPE_CHECKING:
    from src.common.postgres.session_makers import BeginsSessions


def chain(*, as_json: AsJson = False) -> None:
    """Give every journal entry that has no hash its own, user after user.

    Run it once, as the owner of the tables, when no process of an older release is left. The
    service may run meanwhile. You may stop this command and run it again: it goes on where it was.
    At its end every entry has a hash, and the database takes none without.
    """
    from src.common.credits.chaining import Chaining, complete_chain

    whole = Chaining(is_complete=True)
    with migrated_database(get_settings()), progress() as bars:
        everybody = sessions_of_all()
        total = sum(map(_users_of, everybody))
        looking = bars.add_task("Users looked at", total=total)
        giving = bars.add_task("Entries given a hash", total=None)
        for sessions in everybody:
            done = Chaining()
            for done in complete_chain(sessions):
                bars.update(looking, completed=whole.users + done.users)
                bars.update(giving, completed=whole.entries + done.entries)
            whole.add(done)
    print_record(asdict(whole), as_json=as_json)
    if not as_json:
        say("Every entry has its hash. Next: flashslides verify")


def _users_of(sessions: "BeginsSessions") -> int:
    from src.common.credits.verification.verify import count_users

    with sessions.begin() as session:
        return count_users(session)
