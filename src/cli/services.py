"""`flashslides serve` and `flashslides worker`: what they take; modules of these names do it."""

from typing import Annotated

import typer

from src.cli.choices import APPLICATION, WORKER_INTERVAL_SECONDS


def serve(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="The port to listen on. Default: API_PORT, 8000."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, envvar="WEB_CONCURRENCY", help="How many server processes.")
    ] = 1,
    migrate: Annotated[
        bool | None,
        typer.Option(
            "--migrate/--no-migrate",
            help="Whether to run the migrations first. By default only for the embedded server.",
        ),
    ] = None,
    app: Annotated[
        str,
        typer.Option(
            metavar="MODULE:APP",
            help="Serve your own application in place of the API. It has called `install(app)`. "
            "The module may be in the current folder.",
        ),
    ] = APPLICATION,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="Restart the application whenever a Python file below the current folder changes. "
            "With one process only.",
        ),
    ] = False,
) -> None:
    """Run the API. If DATABASE_HOST is not set, run a PostgreSQL server with it.

    Ctrl-C stops the API. It also stops that PostgreSQL server, unless another process uses it.
    With ENV=local and one process, this command does the work of `flashslides worker` too.
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
            "--once", help="Do what is due now, then end. Exit code 1 means that something failed."
        ),
    ] = False,
) -> None:
    """Do what is due in the background.

    It books lots and holds that have expired. No balance waits for that. It verifies users' books,
    tries Stripe's failed events again, and compares the last days with Stripe. These do not wait
    for each other, except with --once.

    Several workers may run at a time, and each may be killed at any time. SIGTERM ends a worker
    within five seconds.

    The metric `flashslides_credits_drift_users` counts users whose books differ. The metric
    `flashslides_credits_unbookable_users` counts users whom the worker cannot book. `flashslides
    verify` names both.
    """
    from src.cli import worker as service

    service.worker(interval_seconds, once=once)
