"""`flashslides serve` and `flashslides worker`: what they take; modules of these names do it."""

from typing import Annotated

import typer

from src.cli.choices import APPLICATION, WORKER_INTERVAL_SECONDS


def serve(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8000,
    workers: Annotated[
        int, typer.Option(min=1, envvar="WEB_CONCURRENCY", help="How many server processes.")
    ] = 1,
    migrate: Annotated[
        bool | None,
        typer.Option(
            "--migrate/--no-migrate",
            help="Bring the database to the newest revision first. "
            "By default only the embedded one is.",
        ),
    ] = None,
    app: Annotated[
        str,
        typer.Option(
            metavar="MODULE:APP",
            help="An application of your own, made ready by `install(app)`, in place of the API; "
            "looked for in this folder too.",
        ),
    ] = APPLICATION,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="Start the application anew whenever a Python file below this folder changes; "
            "with one process only.",
        ),
    ] = False,
) -> None:
    """Run the service, on an embedded PostgreSQL where DATABASE_HOST is not set.

    Ctrl-C stops it, and the embedded server with it unless somebody else uses that. With
    ENV=local and one process it does the work of `flashslides worker` too.
    """
    from src.cli import serve as service

    service.serve(host, port, workers=workers, migrate=migrate, app=app, reload=reload)


def worker(
    *,
    interval_seconds: Annotated[
        float, typer.Option(min=0.1, max=3_600, help="How long to rest when nothing is due.")
    ] = WORKER_INTERVAL_SECONDS,
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Do what is due now, then end: exit code 1 where anything failed."
        ),
    ] = False,
) -> None:
    """Book what has expired, verify books, settle Stripe's failed events, compare with Stripe.

    The kinds of work do not wait for each other, except with --once. Any number of workers may run,
    and be killed, at any time; SIGTERM ends one within five seconds. No balance depends on the
    expiries: every operation and every answer counts what is due by itself. What it finds in the
    books is the metric `flashslides_credits_drift_users`; users whom it cannot book are the metric
    `flashslides_credits_unbookable_users`, and named by `flashslides verify`.
    """
    from src.cli import worker as service

    service.worker(interval_seconds, once=once)
