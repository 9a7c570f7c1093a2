"""The fixed sentences that students read, in their language."""

import functools
import tomllib
from importlib import resources

from pydantic import BaseModel, ConfigDict

from rag_worker.passages import Passage


class Wording(BaseModel):
    """The sentences of one language, from ``texts/<language>.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    not_covered: str
    no_documents: str
    quoted: str
    page: str
    slide: str

    def place(self, passage: Passage) -> str:
        """Where a passage stands: the file, and its page, slide or last heading."""
        if passage.page is not None:
            return f"{passage.file}, {self.page.format(number=passage.page)}"
        if passage.slide is not None:
            return f"{passage.file}, {self.slide.format(number=passage.slide)}"
        return f"{passage.file}, {passage.heading}" if passage.heading else passage.file


@functools.cache
def wording(language: str) -> Wording:
    """The sentences of ``language``, one of :data:`rag_worker.language.LANGUAGES`."""
    text = resources.files("rag_worker").joinpath("texts", f"{language}.toml")
    return Wording.model_validate(tomllib.loads(text.read_text(encoding="utf-8")))
