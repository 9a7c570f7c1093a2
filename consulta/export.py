"""Questions and answers as JSON lines, for training a model; files that only their owner reads."""

import json
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from core.forgetting import masked
from core.questions import Outcome, Question


async def jsonl(
    questions: AsyncIterator[Question], *, personal_data: bool = False
) -> AsyncIterator[str]:
    """One line for each answered question, oldest first.

    Without ``personal_data`` there is no account and no address in it, and what looks like an
    e-mail address, a telephone or an identity number in the texts is masked. Apologies are no
    answers and are left out.
    """
    async for question in questions:
        answer = question.answer
        if answer is None or answer.outcome is Outcome.FAILED:
            continue
        row = {
            "id": question.id,
            "date": question.date.isoformat(),
            "question": question.input,
            "answer": answer.text,
            "outcome": str(answer.outcome),
            "uncertain": answer.uncertain,
            "language": answer.language,
            "model": answer.model,
            "sources": [asdict(source) for source in answer.sources],
            "rating": question.rating,
        }
        if personal_data:
            row |= {"user_id": question.user_id, "email": question.email}
        else:
            row |= {name: masked(str(row[name])) for name in ("question", "answer")}
        yield json.dumps(row, ensure_ascii=False)


def open_private(file: Path) -> TextIO:
    """Open a file for personal data, empty, also where it was there and others could read it.

    Raises:
        OSError: it cannot be written, is a link, or is somebody else's.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    stream = os.fdopen(descriptor, "w", encoding="utf-8")
    if stat.S_ISREG(os.fstat(descriptor).st_mode):  # Not a device or a pipe, which is for others.
        try:
            os.fchmod(descriptor, 0o600)
            stream.truncate()
        except OSError:
            stream.close()
            raise
    return stream
