"""The identity provider, by OpenID Connect: who has come, and as what they work."""

import uuid
from collections.abc import Mapping
from typing import Any

import httpx2
import structlog
from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth
from fastapi import Request
from fastapi.responses import Response
from joserfc.errors import JoseError

from src.common.exceptions import ErrorKind, ExceptionWithErrorType, Forbidden
from src.common.settings import Settings
from src.console.permissions import Role
from src.console.sessions import Identity, person_id_of

logger = structlog.get_logger(__name__)


class ProviderError(ExceptionWithErrorType):
    """The provider is out of reach, or said what cannot be."""

    kind = ErrorKind.BAD_GATEWAY


class MayNotComeIn(Forbidden):
    """The provider says who has come, and that is nobody who works here any more."""

    def __init__(self, message: str, person_id: uuid.UUID) -> None:
        super().__init__(message, "FORBIDDEN")
        self.person_id = person_id


class NotSignedInThere(ExceptionWithErrorType):
    """The provider knows nobody in this browser, who would have to sign in there anew."""

    kind = ErrorKind.UNAUTHENTICATED


class Provider:
    """The one identity provider of a deployment."""

    def __init__(self, settings: Settings) -> None:
        assert settings.console_oidc_issuer is not None  # noqa: S101  the settings' own check
        assert settings.console_oidc_client_secret is not None  # noqa: S101  the same
        self._settings = settings
        self._issuer = settings.console_oidc_issuer
        self._client: Any = OAuth().register(
            "flashslides",
            client_id=settings.console_oidc_client_id,
            client_secret=settings.console_oidc_client_secret.get_secret_value(),
            server_metadata_url=f"{self._issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": settings.console_oidc_scope,
                "code_challenge_method": "S256",
                "timeout": 10,
            },
        )

    async def send_there(self, request: Request, *, only_confirm: bool) -> Response:
        """On to the provider, which asks for a sign-in only where it may show a page.

        Raises:
            ProviderError: SIGN_IN_UNAVAILABLE.
        """
        options = {"prompt": "none"} if only_confirm else {}
        back = f"{self._settings.console_url}/sign-in/callback"
        try:
            answer: Response = await self._client.authorize_redirect(request, back, **options)
        except (httpx2.HTTPError, OAuthError, ValueError, KeyError) as error:
            raise _unavailable(error) from None
        return answer

    async def identity(self, request: Request) -> Identity:
        """Who comes back from there: the signature, issuer, audience, nonce and state are right.

        Raises:
            NotSignedInThere: SIGN_IN_NEEDED, nobody is signed in at the provider, who was not to
                show a page.
            MayNotComeIn: FORBIDDEN, an address that is not verified or of another domain, or no
                role.
            ProviderError: SIGN_IN_UNAVAILABLE.
        """
        await self._refuse_unasked(request)
        try:
            token = await self._client.authorize_access_token(
                request, claims_options={"iss": {"essential": True, "value": self._issuer}}
            )
            claims: Mapping[str, Any] = token["userinfo"]
        except OAuthError as error:
            if error.error in _ASKS_FOR_A_PAGE:
                raise NotSignedInThere("Sign in again", "SIGN_IN_NEEDED") from None
            raise _unavailable(error) from None
        except (httpx2.HTTPError, JoseError, ValueError, KeyError, RuntimeError) as error:
            raise _unavailable(error) from None
        return identity_of(claims, self._settings)

    async def _refuse_unasked(self, request: Request) -> None:
        """The library looks at an error first: any page's link could say that nobody is known.

        Raises:
            ProviderError: SIGN_IN_UNAVAILABLE, it is no answer to what this browser asked.
        """
        state = request.query_params.get("state", "")
        if await self._client.framework.get_state_data(request.session, state) is None:
            raise _unavailable(OAuthError("mismatching_state"))


_ASKS_FOR_A_PAGE = frozenset(
    {"login_required", "interaction_required", "consent_required", "account_selection_required"}
)


def identity_of(claims: Mapping[str, Any], settings: Settings) -> Identity:
    """Who these genuine claims are about.

    Raises:
        MayNotComeIn: FORBIDDEN.
    """
    issuer, subject = str(claims["iss"]), str(claims["sub"])
    person_id = _person_id(issuer, subject, settings)
    email = str(claims.get("email", ""))
    account, _, domain = email.rpartition("@")
    is_ours = account != "" and domain.lower() in settings.console_domains
    if claims.get("email_verified") is not True or not is_ours:
        raise MayNotComeIn(
            "This address may not come in: it is not verified, or of another domain than "
            "CONSOLE_OIDC_EMAIL_DOMAINS names",
            person_id,
        )
    roles = _roles(claims.get(settings.console_oidc_role_claim))
    if not roles:
        raise MayNotComeIn(
            "You have no role here: ask whoever runs the identity provider for one of "
            f"{', '.join(Role)}",
            person_id,
        )
    return Identity(issuer, subject, email, roles, person_id)


def _roles(claim: object) -> frozenset[Role]:
    if isinstance(claim, list):
        return frozenset(role for role in Role if role in claim)
    return frozenset(role for role in Role if role == claim)


def _person_id(issuer: str, subject: str, settings: Settings) -> uuid.UUID:
    """Where users sign in at the same provider, the person is the user with the same id.

    So somebody with two ways in, the API's and the console's, is one actor, who consents to
    nothing of their own.
    """
    if issuer == settings.auth_jwt_issuer:
        try:
            return uuid.UUID(subject)
        except ValueError:
            pass
    return person_id_of(issuer, subject)


def _unavailable(error: Exception) -> ProviderError:
    logger.warning("Sign-in failed", reason=type(error).__name__, code=getattr(error, "error", ""))
    sentence = "The identity provider did not answer, or not as it should: try again"
    return ProviderError(sentence, "SIGN_IN_UNAVAILABLE")
