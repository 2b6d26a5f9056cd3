"""The application: `create_app()`, and `app` for a server to import."""

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from src.api.src.install import install
from src.api.src.routes import (
    API_PREFIX,
    checkout_pages,
    credit_batches,
    credit_entries,
    credit_stream,
    front_page,
    health,
    payments,
    reports,
    sign_in,
    users,
    webhooks,
)
from src.api.src.routes.credit_writes import router as credit_writes_router
from src.api.src.routes.credits import router as credits_router
from src.common.settings import get_settings


def create_app() -> FastAPI:
    """The whole API, and the console where it is on, by the settings of this process."""
    settings = get_settings()
    app = FastAPIOffline(  # FastAPI, whose /docs and /redoc come from this service alone
        title="FlashSlides AI",
        summary="Users, Stripe purchases and prepaid credits",
        version="0.1.0",
        redirect_slashes=False,  # to what the Host header says; another path is another resource
        telemetry={
            "logs": False,  # they would hold errors' messages, and so personal data
            "operation_spans": False,  # the fast path has none, and the request's own says as much
        },
        routes=[  # the application's own, and the first to be matched
            *credit_writes_router.routes,
            *credit_entries.router.routes,
            *sign_in.router.routes,
        ],
    )
    install(app)
    app.include_router(front_page.router)
    if settings.is_local:
        app.include_router(checkout_pages.router)
    app.include_router(health.router)
    app.include_router(users.router, prefix=API_PREFIX)
    app.include_router(credits_router, prefix=API_PREFIX)
    app.include_router(credit_stream.router, prefix=API_PREFIX)
    app.include_router(credit_batches.router, prefix=API_PREFIX)
    app.include_router(payments.router, prefix=API_PREFIX)
    app.include_router(reports.router, prefix=API_PREFIX)
    app.include_router(webhooks.router, prefix=API_PREFIX)
    if settings.has_console:
        from src.console.application import mount_console  # nothing of it is loaded where it is off

        mount_console(app, settings)
    return app


app = create_app()
