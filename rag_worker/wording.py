"""The fixed sentences that students read, in their language."""

import datetime
import functools
import tomllib
from importlib import resources

from pydantic import BaseModel, ConfigDict

from rag_worker.passages import Passage


class Wording(BaseModel):
    """The sentences of one language, from ``texts/<language>.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    not_covered: str
    closest: str
    no_documents: str
    quoted: str
    all_past: str
    greeting: str
    commanding: str
    left_out: str
    other_language: str
    part: str
    about_course: str
    what_is: str
    page: str
    slide: str
    today: str
    weekdays: list[str]
    months: list[str]

    def place(self, passage: Passage) -> str:
        """Where a passage stands: the file, and its page, slide or last heading."""
        if passage.page is not None:
            return f"{passage.file}, {self.page.format(number=passage.page)}"
        if passage.slide is not None:
            return f"{passage.file}, {self.slide.format(number=passage.slide)}"
        return f"{passage.file}, {passage.heading}" if passage.heading else passage.file

    def date(self, day: datetime.date) -> str:
        """The sentence that tells the model which day it is."""
        return self.today.format(
            weekday=self.weekdays[day.weekday()],
            day=day.day,
            month=self.months[day.month - 1],
            year=day.year,
        )


@functools.cache
def wording(language: str) -> Wording:
    """The sentences of ``language``, one of :data:`rag_worker.language.LANGUAGES`."""
    text = resources.files("rag_worker").joinpath("texts", f"{language}.toml")
    return Wording.model_validate(tomllib.loads(text.read_text(encoding="utf-8")))
