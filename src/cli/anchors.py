"""`flashslides anchors …`: checkpoints outside the database, and proofs against them."""

import os
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli import exit_codes
from src.cli.output import AsJson, print_json, print_record, progress, say
from src.cli.pages import Cursor, Limit, print_page
from src.cli.reach import get_settings, migrated_database, run_reading
from src.cli.users import EmailOrId, id_of
from src.cli.whose import routed_to_user
from src.common.exceptions import Invalid

if TYPE_CHECKING:
    from collections.abc import Generator

    from src.common.anchors.checkpoints import Checkpoint
    from src.common.anchors.run import Round
    from src.common.anchors.standings import Standing

app = typer.Typer(
    help="Anchors, by which a rewritten history is found: close, list, keygen, prove, check.",
    no_args_is_help=True,
)
PublicKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--public-key",
        help="Whose signatures are believed. May be given several times. "
        "Default: ANCHOR_PUBLIC_KEYS, or the signing key's.",
    ),
]
DEFAULT_KEY_NAME = "flashslides"


@app.command("close")
def close(*, as_json: AsJson = False) -> None:
    """Close a checkpoint now, and bring it to every sink.

    Exit code 1 means that a sink does not have it, or that nothing could be closed.
    """
    from src.common.anchors.configuration import configured_signing_key, configured_sinks
    from src.common.anchors.run import run_round
    from src.common.database import SessionLocal
    from src.common.exceptions import SettingsError

    settings = get_settings()
    with migrated_database(settings):
        sinks = configured_sinks(settings)
        if not sinks:
            raise SettingsError("ANCHOR_SINKS is not set: there is no place for a checkpoint")
        key = configured_signing_key(settings)
        result = _shown(run_round(SessionLocal, sinks, key, closes=True))
    closed = None if result.checkpoint is None else _closed(result.checkpoint)
    if as_json:
        print_json({"checkpoint": closed, "sinks": list(map(_stands, result.standings))})
    else:
        _print_round(closed, result)
    if closed is None or any(each.problem for each in result.standings):
        raise typer.Exit(exit_codes.FAILED)


def _shown(steps: "Generator[int, None, Round]") -> "Round":
    with progress(transient=True) as bars, closing(steps):
        task = bars.add_task("Users", total=None)
        while True:
            try:
                bars.update(task, completed=next(steps))
            except StopIteration as ended:
                result: Round = ended.value
                return result


def _closed(checkpoint: "Checkpoint") -> dict[str, Any]:
    return {
        "number": checkpoint.number,
        "closed_at": checkpoint.closed_at,
        "users": checkpoint.users,
        "entries": checkpoint.entries,
        "leaves": checkpoint.leaves,
        "checkpoint_hash": checkpoint.hash.hex(),
    }


def _stands(standing: "Standing") -> dict[str, Any]:
    return asdict(standing)


def _print_round(closed: dict[str, Any] | None, result: "Round") -> None:
    if closed is None:
        say("No checkpoint was closed: a sink is in the way, or none can be asked.")
    else:
        print_record(closed, as_json=False)
    for standing in result.standings:
        has = "nothing yet" if standing.number is None else f"checkpoint {standing.number}"
        problem = f" ({standing.problem}): {standing.explanation}" if standing.problem else ""
        say(f"{standing.sink} has {has}{problem}")


@app.command("list")
def list_checkpoints(*, limit: Limit = 20, cursor: Cursor = None, as_json: AsJson = False) -> None:
    """List the checkpoints that were closed, newest first, and which sinks have them."""
    from src.common.anchors import queries

    page = run_reading(
        get_settings(),
        lambda session: queries.list_checkpoints(session, cursor=cursor, limit=limit),
    )
    rows = list(map(asdict, page.items))
    print_page(rows, page.next_cursor, as_json=as_json, empty="There are no checkpoints yet.")


@app.command("keygen")
def keygen(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not be there yet.")],
    *,
    name: Annotated[str, typer.Option(help="The key's name, which signatures show.")] = (
        DEFAULT_KEY_NAME
    ),
    as_json: AsJson = False,
) -> None:
    """Make a key that signs checkpoints, and print its public key.

    Only you can read the file. Give it to the worker (ANCHOR_SIGNING_KEY_FILE), and the public key
    to whoever is to check checkpoints.
    """
    from src.common.anchors.notes import new_signing_key

    key = new_signing_key(name)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Invalid(
            f"{file} cannot be written: {os.strerror(error.errno or 0)}",
            "VALIDATION_ERROR",
            field="file",
        ) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(f"{key.written()}\n")
    print_record({"public_key": str(key.public), "file": file}, as_json=as_json)


@app.command("prove")
def prove(
    user: EmailOrId,
    seq: Annotated[int, typer.Argument(min=1, help="The entry's number, as `history` shows it.")],
) -> None:
    """Print a proof that an entry is in the newest checkpoint, as JSON.

    It has the entry, those that follow it up to the checkpoint, and the way to the signed root.
    Whoever has it and the public key needs no database: `flashslides anchors check`.
    """
    import msgspec

    from src.common.anchors.proving import prove as make_proof
    from src.common.database import SessionLocal

    with migrated_database(get_settings()), routed_to_user(user):
        user_id = id_of(user)
        with SessionLocal() as session:
            proof = make_proof(session, user_id, seq)
    print_json(msgspec.to_builtins(proof))


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="The proof, as `flashslides anchors prove` wrote.")],
    *,
    public_key: PublicKeys = None,
    as_json: AsJson = False,
) -> None:
    """Check a proof without the database, and print what it proves.

    Exit code 1 means that it proves nothing.
    """
    from msgspec import structs

    from src.common.anchors.configuration import believed_keys
    from src.common.anchors.proofs import PROOF_OCTETS_MAX, check_proof

    keys = believed_keys(get_settings(), public_key or ())
    try:
        with file.open("rb") as opened:
            octets = opened.read(PROOF_OCTETS_MAX + 1)
    except OSError as error:
        raise Invalid(
            f"{file} cannot be read: {os.strerror(error.errno or 0)}",
            "VALIDATION_ERROR",
            field="file",
        ) from None
    print_record(structs.asdict(check_proof(octets, keys)), as_json=as_json)
