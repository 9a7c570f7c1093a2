"""Is the address the student's? The mail with a link that shows it, and the page behind it."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from api import errors
from api.deps import CurrentUser, LimitsDep, Resources, ResourcesDep, UsersDep
from api.limits import CONFIRMATIONS, LimitReachedError
from api.pages import Button, PageRoute, language_of, page
from api.schemas import Message
from core.links import LIFETIMES, ExpiredLinkError, InvalidLinkError, LinkPurpose
from core.mails import MailKind
from core.users import User, normal_form

_TEXTS = {
    "es": {
        "title": "Confirma tu dirección de correo",
        "press": "Pulsa el botón y quedará confirmada.",
        "button": "Confirmar mi dirección",
        "thanks": "Dirección confirmada",
        "done": "Gracias. Puedes cerrar esta página.",
    },
    "en": {
        "title": "Confirm your e-mail address",
        "press": "Press the button, and it is confirmed.",
        "button": "Confirm my address",
        "thanks": "Address confirmed",
        "done": "Thank you. You may close this page.",
    },
}
_SENT = {
    "es": "Te hemos enviado un correo con un enlace: ábrelo para confirmar tu dirección.",
    "en": "A mail with a link is on its way to you: open it to confirm your address.",
}
_CONFIRMED = {
    "es": "Tu dirección ya está confirmada: no hace falta nada más.",
    "en": "Your address is confirmed already: there is nothing left to do.",
}

router = APIRouter(tags=["Accounts"])
pages = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.post(
    "/auth/send-confirmation",
    status_code=202,
    summary="Confirm your address: send the link again",
    responses=errors.responses(*errors.STUDENT, errors.TooManyMailsError),
)
async def send_again(
    user: CurrentUser, request: Request, resources: ResourcesDep, limits: LimitsDep
) -> Message:
    """Sends the e-mail with the confirmation link to your address, three times an hour at most."""
    language = language_of(request, resources.settings)
    is_dead = await resources.suppressions.reason(user.email) is not None
    if user.confirmed is not None and not is_dead:
        return Message(message=_CONFIRMED[language])
    account = normal_form(user.email)
    try:
        await run_in_threadpool(limits.take, CONFIRMATIONS, account)
    except LimitReachedError as reached:
        raise errors.TooManyMailsError(reached.seconds) from None
    try:
        await send_confirmation(resources, user, language)
    except errors.DATABASE_ERRORS:
        await run_in_threadpool(limits.give_back, CONFIRMATIONS, account)
        raise
    return Message(message=_SENT[language])


async def send_confirmation(resources: Resources, user: User, language: str) -> None:
    """Queue the mail with the link."""
    await resources.mails.enqueue(
        MailKind.CONFIRMATION,
        email=user.email,
        language=language,
        values={
            "url": resources.links.confirmation(user.id, user.email),
            "expires": (datetime.now(UTC) + LIFETIMES[LinkPurpose.CONFIRM]).isoformat(),
        },
    )


@pages.api_route("/confirm/{token}", methods=["GET", "HEAD"])
async def ask_to_confirm(
    token: str, request: Request, resources: ResourcesDep, users: UsersDep
) -> Response:
    """The button; nothing is confirmed yet, for mail servers open links to look at them."""
    user_id, email = _signed(token, resources)
    user = await run_in_threadpool(users.get, user_id)
    if user is None or user.email_normal != normal_form(email):
        raise errors.BrokenLinkError
    language = language_of(request, resources.settings)
    texts = _TEXTS[language]
    return page(
        resources.settings,
        language,
        texts["title"],
        [texts["press"]],
        buttons=[Button("confirm", "yes", texts["button"], chosen=True)],
    )


@pages.post("/confirm/{token}")
async def confirm(
    token: str, request: Request, resources: ResourcesDep, users: UsersDep
) -> Response:
    """The address is the student's; mail may be sent to it again."""
    user_id, email = _signed(token, resources)
    if await run_in_threadpool(users.confirm, user_id, email) is None:
        raise errors.BrokenLinkError
    await resources.suppressions.remove(email)
    language = language_of(request, resources.settings)
    texts = _TEXTS[language]
    return page(resources.settings, language, texts["thanks"], [texts["done"]])


def _signed(token: str, resources: Resources) -> tuple[int, str]:
    try:
        user_id, email = resources.links.read(LinkPurpose.CONFIRM, token)
    except ExpiredLinkError:
        raise errors.OldConfirmationError from None
    except InvalidLinkError:
        raise errors.BrokenLinkError from None
    return user_id, email


router.include_router(pages)
