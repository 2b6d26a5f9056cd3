"""What `flashslides serve` does: database, migrations, API, from one command."""

import os
import secrets
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType

from src.cli.choices import APPLICATION
from src.cli.development import development_keys
from src.cli.output import say
from src.cli.reach import database_in_reach, refuse_old_schema
from src.cli.running_stripe import announced, offline_key, with_running_stripe
from src.cli.stripe_permissions import tell_of_missing_permissions
from src.cli.worker import working
from src.common.exceptions import SettingsError
from src.common.postgres.engines import database_url
from src.common.postgres.migrations import upgrade_to_head
from src.common.settings import Settings, get_settings
from src.local_postgres import data_folder

STRIPE_STATE_FILE = "offline-stripe.json"


def serve(
    host: str,
    at_port: int | None,
    *,
    workers: int,
    migrate: bool | None,
    app: str,
    reload: bool,
) -> None:
    """Run the service as `src.cli.services` was told to."""
    if reload and workers > 1:
        raise SettingsError("--reload: serves with one process; leave --workers out")
    settings = get_settings()
    port = settings.api_port if at_port is None else at_port
    _refuse_busy_port(host, port)
    signal.signal(signal.SIGTERM, _leave)
    with ExitStack() as stack:
        server = stack.enter_context(database_in_reach(settings))
        if migrate or (migrate is None and server is not None):
            upgrade_to_head()
        else:
            refuse_old_schema()
        settings = _with_development_keys(settings, port, workers)
        settings = put_offline_stripe_in_place(settings, stack, host, port)
        if workers > 1:  # the processes' metrics are added up from files
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="flashslides-"))
            os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", folder)
        works = does_the_workers_work(settings, workers)
        if works:
            stack.enter_context(working())
        tell_of_missing_permissions(settings)
        if app != APPLICATION:
            _look_for(app, reload=reload)
        _greet(settings, app, host, port, works=works, link=_console_link(settings, app))
        _run(settings, app, host, port, workers, reload=reload)


def does_the_workers_work(settings: Settings, workers: int) -> bool:
    """Whether nobody need run `flashslides worker`: on a developer's machine, by one process."""
    return settings.is_local and workers == 1


def _look_for(app: str, *, reload: bool) -> None:
    """Import an application of the reader's own, so that nobody is greeted where there is none."""
    from src.cli import server_processes

    sys.path.append(str(Path.cwd()))  # a command, unlike `python -m`, does not look there itself
    if not reload:  # which waits for whoever mends the file
        server_processes.import_application(app)


def _run(settings: Settings, app: str, host: str, port: int, workers: int, *, reload: bool) -> None:
    from src.cli import server_processes
    from src.cli.http_protocol import BoundedHttpProtocol

    with suppress(KeyboardInterrupt):  # Ctrl-C is how this command ends
        server_processes.run_server(
            app,
            hang_timeout_seconds=settings.api_hang_timeout_seconds,
            reload=reload,
            host=host,
            port=port,
            workers=workers,
            loop="uvloop",  # named, so that a lack of either is an error and not a server
            http=BoundedHttpProtocol,  # that needs five times the CPU for a request (decision 0018)
            ws="none",  # we serve none, and its shutdown can end that of all others
            timeout_graceful_shutdown=settings.api_shutdown_timeout_seconds,
            log_config=None,  # the application's own, src/common/observability.py
            access_log=False,  # src/api/src/request_context.py logs one line a request
            server_header=False,
        )


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """SIGTERM ends the command like Ctrl-C does, so that the embedded server is left properly."""
    raise SystemExit(0)


def _refuse_busy_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"--port: cannot listen on {host}:{port} ({error.strerror}); stop what runs there, "
                "or choose another"
            ) from None


def _with_development_keys(settings: Settings, port: int, workers: int) -> Settings:
    """Tell the server processes how many they are and where they listen.

    They get this machine's keys where nothing else is configured.
    """
    os.environ["WEB_CONCURRENCY"] = str(workers)
    os.environ["API_PORT"] = str(port)
    if settings.is_local:
        if settings.auth_jwt_secret is None and settings.auth_jwt_jwks_url is None:
            os.environ["AUTH_JWT_SECRET"] = development_keys(settings).public_jwk_set
        if not settings.stripe_webhook_secrets:
            secret = development_keys(settings).webhook_secret
            os.environ["STRIPE_WEBHOOK_SECRET"] = secret.get_secret_value()
        if settings.console_session_secret is None:  # every server process signs with the same
            os.environ["CONSOLE_SESSION_SECRET"] = secrets.token_urlsafe(32)
    get_settings.cache_clear()
    return get_settings()


def put_offline_stripe_in_place(
    settings: Settings, stack: ExitStack, host: str, port: int
) -> Settings:
    """On a developer's machine without a Stripe key, put the offline Stripe in Stripe's place.

    Another `serve` may have one already: two would write the same file, and each forget the
    other's payments.
    """
    if not settings.is_local or settings.stripe_secret_key or settings.stripe_api_base_url:
        return settings
    running = with_running_stripe(settings)
    if running.stripe_api_base_url is not None:
        return _sent_to_stripe_at(running.stripe_api_base_url)
    from src.cli import offline_stripe  # half a second that only this way of serving pays

    listening = offline_stripe.listen(None)
    stack.callback(listening.close)
    offline_port: int = listening.getsockname()[1]
    state_file = data_folder() / STRIPE_STATE_FILE
    offline = offline_stripe.open_account(offline_port, state_file)
    address = f"[{host}]" if ":" in host else host.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    offline.set_endpoint(
        f"http://{address}:{port}/api/v1/webhook", secret=settings.stripe_webhook_secrets[0]
    )
    stack.enter_context(offline_stripe.running(offline, listening, state_file))
    stack.enter_context(announced(offline.account.public_url))
    return _sent_to_stripe_at(offline.account.public_url)


def _sent_to_stripe_at(url: str) -> Settings:
    os.environ["STRIPE_SECRET_KEY"] = offline_key()
    os.environ["STRIPE_API_BASE_URL"] = url
    get_settings.cache_clear()
    return get_settings()


def _console_link(settings: Settings, app: str) -> str | None:
    """Below the service's address, where the console is, with a token that signs in once."""
    if not settings.is_local or not settings.has_console or app != APPLICATION:
        return None
    from src.cli.console import own_name, path_of_link
    from src.common.database import SessionLocal

    with SessionLocal.begin() as session:
        return path_of_link(session, own_name())


def _greet(
    settings: Settings, app: str, host: str, port: int, *, works: bool, link: str | None
) -> None:
    url = f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{port}"  # noqa: S104  only compared
    lines = [
        f"FlashSlides ({settings.env})",
        f"  API        {url}/api/v1" if app == APPLICATION else f"  {app:<10} {url}",
        f"  Docs       {url}/docs",
        f"  Database   {database_url(settings)}",
    ]
    lines.append(
        "  Worker     in this process"
        if works
        else "  Worker     none here: run `flashslides worker` beside it"
    )
    if settings.is_local:
        lines += [
            "  A user     flashslides user create ada@example.com",
            "  A token    flashslides user token ada@example.com",
        ]
    if link is not None:
        lines.append(f"  Console    {url}{link} (signs you in, once)")
    if settings.stripe_api_base_url is not None:
        lines.append(f"  Stripe     {settings.stripe_api_base_url} (offline: no card, no money)")
    lines.append("Ctrl-C stops it.")
    say("\n".join(lines), err=True)
