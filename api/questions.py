"""A student's questions."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Path, Query, Response

from api import errors
from api.deps import AskingUser, CurrentUser, QueueDep, SettingsDep
from api.schemas import (
    LARGEST_NUMBER,
    AcceptedQuestion,
    AnswerShown,
    Links,
    NewQuestion,
    QuestionPage,
    QuestionShown,
    QuestionSummary,
    SourceShown,
)
from core.questions import (
    Answer,
    IdempotencyConflictError,
    Question,
    QuestionQueue,
    TooManyHourlyError,
    TooManyWaitingError,
)

QuestionId = Annotated[int, Path(ge=1, le=LARGEST_NUMBER, description="The question's number")]

UNKNOWN_PACE_SECONDS = 60.0
"""After how long to try again where nothing was answered yet."""
PACE_SECONDS = 1.0
"""How old the pace may be that an expected time is told by."""

router = APIRouter(tags=["Questions"])


@router.post(
    "/questions",
    status_code=202,
    summary="Input Prompt",
    responses={
        202: {
            "description": "Stored; the answer will come by e-mail",
            "headers": {
                "Location": {
                    "description": "Where to look at the question",
                    "schema": {"type": "string"},
                }
            },
        },
        **errors.responses(
            *errors.BODY,
            *errors.STUDENT,
            errors.UnconfirmedEmailError,
            errors.IdempotencyKeyReusedError,
            errors.TooManyQuestionsError,
            errors.TooManyQuestionsThisHourError,
            errors.BusyNetworkError,
        ),
    },
)
async def ask(
    *,
    new: NewQuestion,
    user: AskingUser,
    queue: QueueDep,
    settings: SettingsDep,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern="^[!-~]+$",
            description="Optional. Any text of your own; the same again is the same question, "
            "so a repeat after a lost reply does no harm.",
        ),
    ] = None,
) -> AcceptedQuestion:
    """Puts your question into the queue. The answer comes by e-mail, with the pages it rests on.

    You may close this page. The question is stored when you see the reply 202.
    """
    try:
        enqueued = await queue.enqueue(
            input=new.input,
            email=user.email,
            user_id=user.id,
            idempotency_key=idempotency_key,
            most_waiting=settings.max_waiting_per_student,
            most_hourly=settings.questions_per_hour,
        )
    except TooManyWaitingError:
        raise errors.TooManyQuestionsError(
            await _seconds_until_an_answer(queue, user.id), settings.max_waiting_per_student
        ) from None
    except TooManyHourlyError as error:
        seconds = (error.until - datetime.now(UTC)).total_seconds()
        raise errors.TooManyQuestionsThisHourError(seconds, settings.questions_per_hour) from None
    except IdempotencyConflictError:
        raise errors.IdempotencyKeyReusedError from None
    question = enqueued.question
    structlog.contextvars.bind_contextvars(question=question.id)
    links = Links(self=f"/questions/{question.id}")
    response.headers["Location"] = links.self
    return AcceptedQuestion(
        id=question.id,
        state=question.state,
        repeated=not enqueued.created,
        links=links,
        **await _expectation(queue, question),
    )


@router.get(
    "/questions",
    summary="My questions",
    responses=errors.responses(errors.InvalidInputError, *errors.STUDENT),
)
async def my_questions(
    user: CurrentUser,
    queue: QueueDep,
    limit: Annotated[int, Query(ge=1, le=100, description="How many")] = 20,
    before: Annotated[
        int | None,
        Query(ge=1, le=LARGEST_NUMBER, description="Only those with a smaller number"),
    ] = None,
) -> QuestionPage:
    """Your questions, newest first."""
    questions = await queue.mine(user.id, limit=limit + 1, before=before)
    shown = questions[:limit]
    more = len(questions) > limit
    return QuestionPage(
        questions=[QuestionSummary(**QuestionSummary.fields(question)) for question in shown],
        next=f"/questions?limit={limit}&before={shown[-1].id}" if more else None,
    )


@router.get(
    "/questions/{id}",
    summary="One of my questions, with its answer",
    responses=errors.responses(
        errors.InvalidInputError, errors.UnknownQuestionError, *errors.STUDENT
    ),
)
async def my_question(id: QuestionId, user: CurrentUser, queue: QueueDep) -> QuestionShown:
    """Its state, its place in the queue and the expected time; once answered, the answer.

    The states: `waiting` (in the queue), `answering` (being worked on), `answered` (the e-mail
    is about to leave), `sent` (your mail server has it), `undeliverable` (it was refused).
    """
    structlog.contextvars.bind_contextvars(question=id)
    question = await queue.one(id, user.id)
    if question is None:
        raise errors.UnknownQuestionError
    return QuestionShown(
        **QuestionSummary.fields(question),
        **await _expectation(queue, question),
        answer=_shown(question.answer) if question.answer else None,
    )


async def _seconds_until_an_answer(queue: QuestionQueue, user_id: int) -> float:
    oldest = await queue.oldest_waiting(user_id)
    place = await queue.place(oldest) if oldest else 0
    seconds = (await queue.pace(max_age=PACE_SECONDS)).expected_seconds(place)
    return UNKNOWN_PACE_SECONDS if seconds is None else seconds


async def _expectation(queue: QuestionQueue, question: Question) -> dict[str, Any]:
    place = await queue.place(question)
    if place == 0:
        return {"place": None, "expected_seconds": None, "expected_at": None}
    seconds = (await queue.pace(max_age=PACE_SECONDS)).expected_seconds(place)
    expected_at = None
    if seconds is not None:
        expected_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=round(seconds))
    return {"place": place, "expected_seconds": seconds, "expected_at": expected_at}


def _shown(answer: Answer) -> AnswerShown:
    return AnswerShown(
        text=answer.text,
        language=answer.language,
        uncertain=answer.uncertain,
        sources=[
            SourceShown(
                file=source.file,
                page=source.page,
                slide=source.slide,
                heading=source.heading,
                quotation=source.quotation,
            )
            for source in answer.sources
        ],
    )
