"""For workers that cannot reach MongoDB: fetch a question, keep it, give it back, answer it."""

from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Query, Response
from pydantic import Field

from api import errors
from api.deps import CurrentWorker, QueueDep, SettingsDep
from api.questions import QuestionId
from api.schemas import LARGEST_NUMBER, TIDY, Claim, ClaimedQuestion, GivenAnswer
from core.questions import Answer, Outcome, apology

router = APIRouter(tags=["Workers"])


@router.get(
    "/receive-prompt",
    summary="Claim the oldest question",
    response_model=ClaimedQuestion,
    responses={
        204: {"description": "No question is waiting: ask again in a while"},
        **errors.responses(*errors.WORKER),
    },
)
async def receive_prompt(
    worker: CurrentWorker, queue: QueueDep, settings: SettingsDep
) -> ClaimedQuestion | Response:
    """Hands out the oldest question that is due, for one lease.

    Whoever renews the claim in time keeps it; else the next worker gets the question. A question
    whose workers keep dying is not handed out again but answered with an apology.
    """
    while question := await queue.claim(worker):
        structlog.contextvars.bind_contextvars(question=question.id)
        if not queue.is_poisonous(question):
            return ClaimedQuestion(
                id=question.id,
                input=question.input,
                date=question.date,
                claims=question.claims,
                attempts=question.attempts,
                lease_seconds=settings.lease_seconds,
                earlier=question.earlier,
            )
        await queue.fail(
            question.id,
            question.claims,
            error="its workers died without a word",
            apology=apology(settings.course_language),
        )
    return Response(status_code=204)


@router.put(
    "/questions/{id}/claim",
    status_code=204,
    summary="Renew a claim",
    responses=errors.responses(*errors.BODY, *errors.WORKER, errors.ClaimLostError),
)
async def renew(id: QuestionId, claim: Claim, _worker: CurrentWorker, queue: QueueDep) -> None:
    """Keeps the question for one more lease from now."""
    structlog.contextvars.bind_contextvars(question=id)
    if not await queue.renew(id, claim.claims):
        raise errors.ClaimLostError


@router.delete(
    "/questions/{id}/claim",
    status_code=204,
    summary="Give a question back",
    responses=errors.responses(errors.InvalidInputError, *errors.WORKER, errors.ClaimLostError),
)
async def give_back(
    *,
    id: QuestionId,
    _worker: CurrentWorker,
    queue: QueueDep,
    settings: SettingsDep,
    claims: Annotated[int, Query(ge=0, le=LARGEST_NUMBER, description="The claim's number")],
    failed: Annotated[
        bool,
        Query(description="The question is at fault: uses up an attempt; the pauses grow"),
    ] = False,
    after: Annotated[
        float,
        Query(ge=0, le=86_400, description="Seconds to wait; only where no attempt is used up"),
    ] = 0,
    error: Annotated[
        Annotated[str, Field(max_length=500), TIDY] | None,
        Query(description="For the staff: what went wrong, without personal data"),
    ] = None,
    language: Annotated[
        Literal["es", "en"] | None,
        Query(description="The student's, for the apology; else the course's"),
    ] = None,
) -> None:
    """Lets the question wait again.

    With `failed` an attempt is used up; after the last one the student is sent an apology.
    """
    structlog.contextvars.bind_contextvars(question=id)
    if failed:
        held = await queue.fail(
            id,
            claims,
            error=error or "failed without a reason",
            apology=apology(language or settings.course_language),
        )
    else:
        held = await queue.give_back(id, claims, after=after, error=error)
    if not held:
        raise errors.ClaimLostError


@router.post(
    "/questions/{id}/answer",
    status_code=204,
    summary="Store the answer",
    responses=errors.responses(*errors.BODY, *errors.WORKER, errors.ClaimLostError),
)
async def answer(
    id: QuestionId, given: GivenAnswer, _worker: CurrentWorker, queue: QueueDep
) -> None:
    """Stores the answer if the claim is still held; the mailer sends it. Takes up to 256 KiB."""
    structlog.contextvars.bind_contextvars(question=id)
    stored = await queue.complete(
        id,
        given.claims,
        Answer(
            text=given.text,
            language=given.language,
            outcome=Outcome(given.outcome),
            sources=tuple(source.source() for source in given.sources),
            model=given.model,
            uncertain=given.uncertain,
            prompt_tokens=given.prompt_tokens,
            answer_tokens=given.answer_tokens,
            truncated=given.truncated,
        ),
    )
    if not stored:
        raise errors.ClaimLostError
