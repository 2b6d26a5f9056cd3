"""The console as an application of its own, which the API mounts at `/console`."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from src.common.models.console_session import SESSION_HOURS
from src.common.settings import Settings
from src.console import problems, sign_in
from src.console.guards import HeadersMiddleware, OwnPagesMiddleware, page_of_defect
from src.console.overview_figures import KnownFigures
from src.console.pages import ROUTERS
from src.console.pages.doctor import KnownChecks
from src.console.rendering import FOLDER
from src.defects import DefectMiddleware

PATH = "/console"


class _Files(StaticFiles):
    """Our own styles and scripts: browsers keep them and ask whether they are still the same."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, to be asked for again by its ETag."""
        answer = await super().get_response(path, scope)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def mount_console(app: FastAPI, settings: Settings) -> None:
    """Serve the console below `/console` of `app`, with what `app`'s lifespan opens."""

    async def go_in(request: Request) -> RedirectResponse:
        return RedirectResponse(str(request.scope.get("root_path", "")) + f"{PATH}/")

    app.add_route(PATH, go_in, methods=["GET"], include_in_schema=False)
    app.mount(PATH, create_console(app.state, settings))


def create_console(state: Any, settings: Settings) -> FastAPI:
    """The console; `state` is the service's: gateway, engine, what its lifespan opens."""
    routers = (sign_in.router, *ROUTERS)
    console = FastAPI(
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"logs": False, "operation_spans": False},
        routes=[route for router in routers for route in router.routes],
        middleware=[
            Middleware(HeadersMiddleware),
            Middleware(OwnPagesMiddleware),
            Middleware(
                SessionMiddleware,
                secret_key=settings.console_cookie_secret(),
                session_cookie="flashslides_console"
                if settings.is_local
                else "__Host-flashslides_console",
                max_age=SESSION_HOURS * 3_600,
                same_site="lax",  # Strict is not sent when the identity provider sends one back
                https_only=not settings.is_local,
            ),
            Middleware(DefectMiddleware, answer=page_of_defect),
        ],
    )
    console.mount("/static", _Files(directory=FOLDER / "static"), name="console_static")
    console.state.service = state
    console.state.figures = KnownFigures(settings)
    console.state.checks = KnownChecks()
    console.state.provider = None
    if settings.console_has_oidc:
        from src.console.oidc import Provider

        console.state.provider = Provider(settings)
    problems.install(console)
    return console
