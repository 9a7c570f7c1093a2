"""Did the answer help? The pages behind the buttons below an answer; they need no login."""

from typing import Annotated

import structlog
from fastapi import APIRouter, Form, Query, Response

from api.deps import ResourcesDep
from api.errors import BrokenLinkError, OldFeedbackError
from api.languages import OURS
from api.pages import Button, PageRoute, page
from core.links import ExpiredLinkError, InvalidLinkError, LinkPurpose
from core.mails import MailKind
from core.questions import Answer, Question, Rating
from core.settings import Settings

_TEXTS = {
    "es": {
        "title": "¿Te ha servido la respuesta a tu pregunta {number}?",
        "press": "Pulsa un botón para enviar tu opinión.",
        "thanks": "Gracias",
        Rating.HELPED: "Sí",
        Rating.DID_NOT_HELP: "No",
        Rating.ASK_STAFF: "Preguntar al profesorado",
        "stored": "Tu opinión sobre la respuesta a la pregunta {number} está guardada.",
        "asked": "Tu pregunta {number} se ha enviado al profesorado, que te responderá por correo.",
        "listed": "El profesorado puede ver que le has pedido ayuda con la pregunta {number}.",
        "again": "Puedes cambiar de opinión; cuenta la última.",
    },
    "en": {
        "title": "Did the answer to your question {number} help?",
        "press": "Press a button to send what you think.",
        "thanks": "Thank you",
        Rating.HELPED: "Yes",
        Rating.DID_NOT_HELP: "No",
        Rating.ASK_STAFF: "Ask the course staff",
        "stored": "What you think of the answer to question {number} is stored.",
        "asked": "Your question {number} was sent to the course staff, who will answer by e-mail.",
        "listed": "The course staff can see that you ask for help with question {number}.",
        "again": "You may change your mind; the last word counts.",
    },
}
_PAGE = {"en": "page {number}", "es": "página {number}"}
_SLIDE = {"en": "slide {number}", "es": "diapositiva {number}"}

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.api_route("/feedback/{token}", methods=["GET", "HEAD"])
async def ask_for_feedback(
    token: str, resources: ResourcesDep, choice: Annotated[str, Query()] = ""
) -> Response:
    """The buttons; nothing is stored, for mail servers open links to look at them."""
    question, answer = await _rated(token, resources)
    chosen = choice or str(question.rating or "")
    return feedback_page(resources.settings, question.id, answer.language, chosen)


@router.post("/feedback/{token}")
async def store_feedback(
    token: str, resources: ResourcesDep, choice: Annotated[Rating, Form()]
) -> Response:
    """Store the rating, and tell the staff who asks for them."""
    question, answer = await _rated(token, resources)
    structlog.contextvars.bind_contextvars(question=question.id)
    if not await resources.queue.rate(question.id, choice):
        raise BrokenLinkError
    # The student may have been forgotten since, and with him what went to the staff.
    question, answer = await _rated(token, resources)
    staff = resources.settings.staff_email
    for address in staff if choice is Rating.ASK_STAFF else ():
        first = address == staff[0]
        await resources.mails.enqueue(
            MailKind.FOR_STAFF,
            email=address,
            language=resources.settings.course_language,
            values={
                "number": str(question.id),
                "question": question.input,
                "answer": answer.text,
                "sources": _sources(answer, resources.settings.course_language),
                "student": question.email,
                "reply_to": question.email,
            },
            dedupe=f"for_staff:{question.id}" + ("" if first else f":{address}"),
        )
    language, texts = _texts(answer.language, resources.settings)
    said = "stored" if choice is not Rating.ASK_STAFF else "asked" if staff else "listed"
    return page(
        resources.settings,
        language,
        texts["thanks"],
        [texts[said].format(number=question.id)],
        buttons=_buttons(texts, choice),
        note=texts["again"],
    )


def feedback_page(settings: Settings, number: int, language: str, chosen: str) -> Response:
    """The question's number, never its text: the link may go astray."""
    language, texts = _texts(language, settings)
    return page(
        settings,
        language,
        texts["title"].format(number=number),
        [texts["press"]],
        buttons=_buttons(texts, chosen),
    )


async def _rated(token: str, resources: ResourcesDep) -> tuple[Question, Answer]:
    try:
        number = resources.links.read(LinkPurpose.FEEDBACK, token)
    except ExpiredLinkError:
        raise OldFeedbackError from None
    except InvalidLinkError:
        raise BrokenLinkError from None
    question = await resources.queue.one(number)
    # Without an address the student's data were deleted: whoever has the old mail rates no more.
    if question is None or question.answer is None or not question.email:
        raise BrokenLinkError
    return question, question.answer


def _texts(language: str, settings: Settings) -> tuple[str, dict[str, str]]:
    language = language if language in OURS else settings.course_language
    return language, _TEXTS[language]


def _buttons(texts: dict[str, str], chosen: str) -> list[Button]:
    return [Button("choice", rating, texts[rating], chosen=rating == chosen) for rating in Rating]


def _sources(answer: Answer, language: str) -> str:
    places = []
    for number, source in enumerate(answer.sources, start=1):
        place = source.file
        if source.page is not None:
            place += f", {_PAGE[language].format(number=source.page)}"
        if source.slide is not None:
            place += f", {_SLIDE[language].format(number=source.slide)}"
        places.append(f"[{number}] {place}")
    return "\n".join(places)
