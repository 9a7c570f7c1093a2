"""Question to answer: search, decide whether the documents say it, ask the model, check it."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

import structlog

from core.questions import Answer, Outcome, Source
from core.settings import Settings
from rag_worker.documents.sections import clean
from rag_worker.language import question_language, terms
from rag_worker.models import LanguageModel
from rag_worker.passages import Passage
from rag_worker.prompt import PromptTooLongError, build_prompt
from rag_worker.retrieval import Hit, Retriever, is_covered
from rag_worker.support import Statement, is_abstention, quotation, supported_statements
from rag_worker.wording import wording

MOST_SHOWN = 4
LEAST_SHOWN = 2
MOST_QUOTED = 3
NEAR_SHARE = 0.6
"""Further passages are used when their score has this share of the best's: on a CPU the prompt's
length is the main cost of an answer."""
QUOTATION_CHARACTERS = 400

log = structlog.get_logger()


class Answerer:
    """Answers questions from one generation of the index."""

    def __init__(
        self,
        settings: Settings,
        retriever: Retriever,
        model: LanguageModel,
        search_thread: Executor,
    ) -> None:
        self._settings = settings
        self._retriever = retriever
        self._model = model
        self._search_thread = search_thread

    async def answer(self, input: str) -> Answer:
        """The answer to a question as a student typed it, in its language.

        Raises:
            ModelAwayError: no model answers.
            TimeoutError: the model took longer than LLM_TIMEOUT.
        """
        question = " ".join(clean(input).split())
        language = question_language(question, self._settings.course_language)
        if self._retriever.is_empty:
            log.warning("no_documents", folder=str(self._settings.document_location))
            text = wording(language).no_documents
            return Answer(text, language, Outcome.NOT_COVERED)
        hits = await asyncio.get_running_loop().run_in_executor(
            self._search_thread, self._retriever.search, question, language, MOST_SHOWN
        )
        if not terms(question, language) or not is_covered(hits):
            return not_covered(language)
        quoted = quote(question, language, _in_one_language(_best(hits, MOST_QUOTED, least=1)))
        if not self._can_write(language, hits[0]):
            return quoted
        return await self._ask_model(question, language, _shown(hits, language)) or quoted

    async def _ask_model(
        self, question: str, language: str, passages: Sequence[Passage]
    ) -> Answer | None:
        """The model's checked words; None when nothing that it wrote can be sent."""
        try:
            prompt = build_prompt(
                question,
                passages,
                language,
                context=self._settings.llm_context,
                max_tokens=self._settings.llm_max_tokens,
            )
        except PromptTooLongError as error:
            log.warning("prompt_too_long", error=str(error))
            return None
        completion = await self._model.write(prompt)
        if is_abstention(completion.text):
            return not_covered(language)
        statements = supported_statements(completion.text, passages, question, language)
        if (
            completion.is_cut
            and statements
            and completion.text.rstrip().endswith(statements[-1].text)
        ):
            # The last sentence has no end.
            statements.pop()
        if not statements:
            log.info("unsupported")
            # Not at INFO: it often repeats the student's question.
            log.debug("unsupported", written=completion.text)
            return None
        return _cite(statements, passages, language, self._settings.llm_model)

    def _can_write(self, language: str, best: Hit) -> bool:
        """Whether the model writes the language, and what it writes can be checked.

        The check compares words, so the best passage must be in the language of the answer.
        """
        return language in self._settings.llm_languages and best.passage.language == language


def _best(hits: Sequence[Hit], most: int, least: int) -> list[Hit]:
    """At most ``most`` hits; beyond ``least``, those whose score comes near the best's."""
    return [
        hit
        for rank, hit in enumerate(hits[:most])
        if rank < least or hit.score >= NEAR_SHARE * hits[0].score
    ]


def _in_one_language(hits: Sequence[Hit]) -> list[Hit]:
    """The hits in the language of the best: another language's are seldom about the same."""
    return [hit for hit in hits if hit.passage.language == hits[0].passage.language]


def _shown(hits: Sequence[Hit], language: str) -> list[Passage]:
    """What the model reads, in document order: its cache serves the same run again."""
    spoken = [hit for hit in hits if hit.passage.language == language]
    best = _best(spoken, MOST_SHOWN, LEAST_SHOWN)
    return [hit.passage for hit in sorted(best, key=lambda hit: hit.row)]


def not_covered(language: str) -> Answer:
    """The answer that the course documents do not say it."""
    return Answer(wording(language).not_covered, language, Outcome.NOT_COVERED)


def quote(question: str, language: str, hits: Sequence[Hit]) -> Answer:
    """The passages' own words, with the places they stand at."""
    sentences = wording(language)
    sources = []
    lines = [sentences.quoted]
    for number, passage in enumerate((hit.passage for hit in hits), start=1):
        words = set(terms(question, passage.language))
        quoted = quotation(passage.text, words, passage.language, QUOTATION_CHARACTERS, fill=True)
        sources.append(_source(passage, quoted))
        lines.append(f"> {' '.join(quoted.split())} [{number}]\n>\n> — {sentences.place(passage)}")
    return Answer("\n\n".join(lines), language, Outcome.QUOTED, tuple(sources))


def _cite(
    statements: Sequence[Statement], passages: Sequence[Passage], language: str, model: str
) -> Answer:
    """The answer with its citations numbered in the order of its sources."""
    cited = list(dict.fromkeys(statement.passage for statement in statements))
    sources = []
    for at in cited:
        words = {
            term
            for statement in statements
            if statement.passage == at
            for term in terms(statement.text, language)
        }
        quoted = quotation(passages[at].text, words, language, QUOTATION_CHARACTERS, fill=False)
        sources.append(_source(passages[at], quoted))
    text = " ".join(
        _with_mark(statement.text, cited.index(statement.passage) + 1) for statement in statements
    )
    return Answer(text, language, Outcome.ANSWERED, tuple(sources), model)


def _with_mark(sentence: str, number: int) -> str:
    end = sentence[-1] if sentence[-1] in ".!?…" else "."
    return f"{sentence.rstrip('.!?…')} [{number}]{end}"


def _source(passage: Passage, quoted: str) -> Source:
    return Source(
        file=passage.file,
        quotation=quoted,
        page=passage.page,
        slide=passage.slide,
        heading=passage.heading,
    )
