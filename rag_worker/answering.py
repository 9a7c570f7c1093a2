"""Question to answer: search, decide whether the documents say it, ask the model, check it."""

import asyncio
import contextvars
import re
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from itertools import zip_longest
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import structlog

from core.clock import Clock, system_clock
from core.questions import Answer, Exchange, Outcome, Source
from core.settings import Settings
from rag_worker.answerability import CLEAR_FORMS, looks_for, sought_by
from rag_worker.dates import asks_for_next, find_dates, is_day_first
from rag_worker.documents.sections import PATH_SEPARATOR, clean
from rag_worker.events import Event, events, wanted_events
from rag_worker.exercises import is_exercise, mentions_exercises
from rag_worker.intent import (
    Reference,
    Scope,
    has_unit,
    is_yes_no,
    named_unit,
    read_message,
    reference_of,
    scope_of,
    subject_of_summary,
    subject_of_unit,
    without_whole,
)
from rag_worker.language import question_language, shows_language, terms
from rag_worker.leaks import gives_away
from rag_worker.models import Completion, LanguageModel, ModelFailedError, PromptTruncatedError
from rag_worker.passages import Passage
from rag_worker.prompt import PromptTooLongError, build_prompt
from rag_worker.quoting import Place, is_title, quotation, quote, source_of, unlike_a_mark
from rag_worker.relevance import Thresholds
from rag_worker.retrieval import Hit, Part, Retriever, best_window
from rag_worker.support import Checked, Statement, check, is_abstention
from rag_worker.wording import wording

T = TypeVar("T")

RANKED = 10
"""Passages that a search gives; a question about everything of a kind is shown all of them."""
MOST_SHOWN = 5
LEAST_SHOWN = 2
NEAR_SHARE = 0.4
"""Further passages are used when their score has this share of the best's: on a CPU the prompt's
length is the main cost of an answer."""
MOST_QUOTED = {Scope.POINT: 2, Scope.LIST: 4, Scope.SUMMARY: 6}
QUOTATION_CHARACTERS = 800
NEXT_CHARACTERS = 250
"""Around a date that is the next: the first of the quotation, not one among many."""
NEAR_SUBJECT = 0.05
"""The probability that the subject is treated, from which on the closest one is named."""
_TELLS_ITS_CONTENT = 0.6
"""The probability from which on the documents say themselves what the course is about."""
_EXERCISE_SHARE = 0.5
"""Of its score, that a passage keeps for being quoted whose best part asks or only names."""
_LACKING_SHARE = 0.6
"""The same where that part has nothing of the kind that is asked for, as a date or a room."""
_WRITTEN_SHARE = 0.7
"""The model's words are sent where what they rest on holds so much of the question's terms as the
best quotation: else they are about something near."""
_KEPT_SHARE = 0.5
"""Of a model's sentences; where fewer pass the check, what is left of its answer is a torso."""
_NUMBERING = re.compile(r"^(?:\d+\.)+\d*\s+|^\d+[)\s]\s*(?=\D)")
_OWN_SHARE = 0.5
"""Of what a follow-up adds to the question before it, in the passages that both find."""
_EARLIER_CHARACTERS = 300

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Explanation:
    """How an answer came about.

    Attributes:
        hits: what the search found, best first.
        shown: what the model was shown, in document order; what it would have been shown, where
            it was not asked.
        evidence: the probability that the documents answer the question; 1 where they have the
            section that it names.
        written: the sentences that the model wrote, and
        supported: how many of them passed the check.
        prompt_tokens, completion_tokens: as the model's server counted them; None where it did
            not say, or was not asked.
        fault: why the model was asked and wrote nothing; None where it did.
        truncated: the model's server cut the prompt, so that what it wrote was thrown away.
    """

    answer: Answer
    hits: tuple[Hit, ...] = ()
    shown: tuple[Passage, ...] = ()
    evidence: float = 0.0
    written: int = 0
    supported: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    search_seconds: float = 0.0
    model_seconds: float = 0.0
    fault: str | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class _Search:
    """What was searched with and found.

    Attributes:
        asked: the question, with the one before it where it needs that.
        section: what a summary is wanted of; empty where none is, or nothing has that name.
    """

    asked: str
    scope: Scope
    hits: list[Hit]
    evidence: float
    uncertain: bool
    section: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """The answer as far as it needs no model, and what the model's would have to fit.

    Attributes:
        asked: as in :class:`_Search`.
        first: the number of the first source.
        due: the day that "the next" one is on; None where none is asked for or known.
        is_past: whether all such days are past.
    """

    explanation: Explanation
    asked: str
    first: int
    due: date | None = None
    is_past: bool = False


class Answerer:
    """Answers questions from one generation of the index."""

    def __init__(
        self,
        settings: Settings,
        retriever: Retriever,
        model: LanguageModel,
        search_thread: Executor,
        *,
        thresholds: Thresholds | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self._settings = settings
        self._retriever = retriever
        self._model = model
        self._search_thread = search_thread
        self._thresholds = thresholds or Thresholds.of_index(settings.index_location)
        self._clock = clock

    async def answer(self, input: str, earlier: Exchange | None = None) -> Answer:
        """The answer to a question as a student typed it, in its language.

        A model that fails at this question leaves the quoted passages.

        Args:
            earlier: what was asked and answered before, where the question replies to it.

        Raises:
            ModelAwayError: no model answers.
        """
        explanation = await self.explain(input, earlier)
        return replace(
            explanation.answer,
            prompt_tokens=explanation.prompt_tokens,
            answer_tokens=explanation.completion_tokens,
            truncated=explanation.truncated,
        )

    async def explain(self, input: str, earlier: Exchange | None = None) -> Explanation:
        """The answer and how it came about; raises what :meth:`answer` raises."""
        text = clean(input)
        default: str = self._settings.course_language
        if earlier:
            default = question_language(earlier.question, default)
        language = question_language(text, default)
        fixed = wording(language)
        message = read_message(text, language, is_reply=earlier is not None)
        if self._retriever.is_empty:
            log.warning("no_documents", folder=str(self._settings.document_location))
            return Explanation(Answer(fixed.no_documents, language, Outcome.NOT_COVERED))
        if not message.questions:
            reply = fixed.commanding if message.was_commanding else fixed.greeting
            return Explanation(Answer(reply, language, Outcome.NO_QUESTION))
        parts: list[Explanation] = []
        for question in message.questions:
            first = 1 + sum(len(part.answer.sources) for part in parts)
            parts.append(await self._explain_one(question, language, first, earlier))
        explanation = parts[0] if len(parts) == 1 else _together(message.questions, parts)
        remarks = []
        if message.left_out:
            remarks.append(fixed.left_out.format(count=len(parts)))
        if not shows_language(text):
            remarks.append(fixed.other_language)
        answer = explanation.answer
        text = "\n\n".join([answer.text, *remarks])
        return replace(explanation, answer=replace(answer, text=text))

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        # With the context, or a line logged there would lack the question's number.
        run = contextvars.copy_context().run
        return await asyncio.get_running_loop().run_in_executor(
            self._search_thread, partial(run, function, *arguments)
        )

    async def _explain_one(
        self, question: str, language: str, first: int, earlier: Exchange | None
    ) -> Explanation:
        found = await self._in_thread(self._find, question, language, first, earlier)
        explanation = found.explanation
        is_covered = explanation.evidence >= self._thresholds.uncertain
        if not is_covered or found.is_past or not self._can_write(language, explanation):
            return explanation
        return await self._ask_model(question, language, found, earlier)

    def _find(self, question: str, language: str, first: int, earlier: Exchange | None) -> _Found:
        """The answer as far as it needs no model: that it is not covered, or quotations."""
        began = time.perf_counter()
        search = self._search(question, language, earlier)
        hits, scope = search.hits, search.scope
        due, is_past = None, False
        if search.evidence < self._thresholds.uncertain:
            near = self._retriever.relevance(search.asked, language, hits) >= NEAR_SUBJECT
            answer = not_covered(language, hits if near else ())
        else:
            limit = QUOTATION_CHARACTERS if scope is Scope.POINT else 2 * QUOTATION_CHARACTERS
            if search.section:
                # How a part begins says what it is about.
                places = [
                    Place(part.passage, part.begin, part.end if part.is_summary else part.begin + 1)
                    for part in search.section
                ]
            elif asks_for_next(search.asked) and (dated := self._events(search.asked, hits)):
                limit = NEXT_CHARACTERS
                coming = [event for event in dated if event.day >= self._today()]
                is_past = not coming
                due = coming[0].day if coming else None
                # Beside the next one only what the search found first, in case it is of another.
                known = coming or dated[-1:]
                found_first = [one for one in known if one.passage == hits[0].passage]
                nearest = dict.fromkeys([known[0], *found_first[:1]])
                by_passage = {event.passage: event for event in reversed(nearest)}
                places = [
                    Place(event.passage, event.begin, event.end)
                    for event in sorted(by_passage.values(), key=lambda event: event.day)
                ]
            else:
                places = self._places(search.asked, language, hits, scope)
            answer = quote(language, places[: MOST_QUOTED[scope]], limit, first)
        if is_past:
            answer = replace(answer, text=f"{wording(language).all_past}\n\n{answer.text}")
        explanation = Explanation(
            replace(answer, uncertain=search.uncertain and answer.outcome is Outcome.QUOTED),
            tuple(hits),
            shown=tuple(dict.fromkeys(part.passage for part in search.section))
            or self._shown(hits, scope),
            evidence=search.evidence,
            search_seconds=time.perf_counter() - began,
        )
        return _Found(explanation, search.asked, first, due, is_past)

    def _search(self, question: str, language: str, earlier: Exchange | None) -> _Search:
        """What the question finds, alone or with the one before it where it follows up that."""
        reference = reference_of(question, language) if earlier else Reference.NONE
        alone = self._search_for(question, language)
        if earlier is None or reference is Reference.NONE:
            return alone
        before = " ".join(read_message(clean(earlier.question), language).questions)
        both = self._search_for(f"{question} {before[:_EARLIER_CHARACTERS]}", language)
        if not self._adds_to(question, language, both.hits, reference):
            return alone
        # A short question may still be a new one.
        enough = min(both.evidence, self._thresholds.certain)
        is_new = reference is Reference.POSSIBLE and alone.evidence >= enough
        return alone if is_new else both

    def _adds_to(
        self, question: str, language: str, hits: Sequence[Hit], reference: Reference
    ) -> bool:
        """Whether the passages that a follow-up finds together with what it follows treat both."""
        words = len(terms(question, language))
        if words == 0 or (words == 1 and sought_by(question)):
            return True
        spoken = [hit.passage.searched_text for hit in hits if hit.passage.language == language]
        if not spoken:
            return reference is Reference.NEEDED
        return self._retriever.share(question, language, spoken) >= _OWN_SHARE

    def _search_for(self, asked: str, language: str) -> _Search:
        scope = scope_of(asked)
        if scope is Scope.SUMMARY:
            return self._search_for_summary(asked, language)
        return self._judged(asked, asked, language, scope)

    def _search_for_summary(self, asked: str, language: str) -> _Search:
        fixed, scope = wording(language), Scope.SUMMARY
        unit = named_unit(asked)
        # That a summary is wanted says nothing of what the documents treat.
        subject = subject_of_unit(asked) if unit else without_whole(subject_of_summary(asked))
        has_subject = bool(terms(subject, language))
        section = self._retriever.section(asked, language, most=MOST_QUOTED[scope])
        if not (section or unit or has_subject):
            about = fixed.about_course
            found = self._judged(about, about, language, scope)
            if found.evidence < _TELLS_ITS_CONTENT:
                found = replace(found, section=self._retriever.beginnings(MOST_QUOTED[scope]))
            return replace(found, evidence=1.0, uncertain=False)
        if not has_subject or (section and unit is None):
            # It names what the documents have or have not, and nothing else.
            hits = self._retriever.search(asked, language, RANKED)
            if section:
                return _Search(asked, scope, hits, 1.0, uncertain=False, section=section)
            if unit and not any(has_unit(hit.passage.text, unit) for hit in hits):
                return _Search(asked, scope, hits, 0.0, uncertain=False)
            return self._judged(asked, asked, language, scope)
        # Words alone are no question, and are judged less well.
        text = fixed.what_is.format(subject=" ".join(subject.split()))
        return replace(self._judged(asked, text, language, scope), section=section)

    def _judged(self, asked: str, text: str, language: str, scope: Scope) -> _Search:
        """What ``text`` finds, and how likely it is answered there."""
        hits = self._retriever.search(text, language, RANKED)
        evidence = self._retriever.evidence(text, language, hits)
        uncertain = evidence < self._thresholds.certain or self._retriever.lacks_what_is_asked(
            text, language, hits
        )
        return _Search(asked, scope, hits, evidence, uncertain)

    def _events(self, question: str, hits: Sequence[Hit]) -> list[Event]:
        """What the question asks for the next of, with its dates, the earliest first."""
        wanted = wanted_events(question)
        if not wanted:
            return []
        found = [
            event
            for hit in _best(hits, MOST_SHOWN, LEAST_SHOWN)
            for event in events(
                hit.passage, wanted, self._today(), day_first=self._is_day_first(hit.passage)
            )
        ]
        return sorted(found, key=lambda event: event.day)

    def _is_day_first(self, passage: Passage) -> bool | None:
        texts = (
            other.text
            for other in self._retriever.generation.passages
            if other.file == passage.file
        )
        return is_day_first(texts, passage.language)

    async def _ask_model(
        self, question: str, language: str, search: _Found, earlier: Exchange | None
    ) -> Explanation:
        """With the model's checked words as the answer, where any can be sent."""
        found, passages = search.explanation, search.explanation.shown
        try:
            completion = await self._write(question, language, passages, earlier)
        except (PromptTooLongError, PromptTruncatedError) as error:
            # What the model says of a prompt whose beginning it never saw is not sent.
            is_cut = isinstance(error, PromptTruncatedError)
            log.error("prompt_truncated" if is_cut else "prompt_too_long", error=str(error))
            return replace(found, truncated=is_cut)
        except (TimeoutError, ModelFailedError) as error:
            fault = str(error)
            if isinstance(error, TimeoutError):
                fault = f"the model took more than {self._settings.llm_timeout:g} s (LLM_TIMEOUT)"
            log.warning("model_failed", error=fault)
            return replace(found, fault=fault)
        found = replace(
            found,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            model_seconds=completion.seconds,
        )
        if gives_away(completion.text):
            log.warning("instructions_given_away")
            # Somebody made it do so: none of its words is trusted.
            completion = replace(completion, text="")
        if is_abstention(completion.text):
            # It may be right, but whether documents say something is not for it to decide.
            return replace(found, answer=replace(found.answer, uncertain=True))
        written = completion.text
        if completion.is_cut:
            written = _without_unfinished(written)
        # To confirm is to say the question's own words again, and not those before it.
        asked = question if is_yes_no(question) else search.asked
        checked = await self._in_thread(self._check, written, passages, asked, language)
        found = replace(found, written=checked.written, supported=len(checked.statements))
        if len(checked.statements) < _KEPT_SHARE * max(checked.written, 1):
            log.info("unsupported")
            # Not at INFO: it often repeats the student's question.
            log.debug("unsupported", written=completion.text)
            return found
        answer = _cite(
            checked.statements, passages, language, self._settings.llm_model, search.first
        )
        cited = {passages[statement.passage].language for statement in checked.statements}
        # Across languages the words do not tell.
        is_beside = cited == {language} and self._is_beside(
            search.asked, language, answer, found.answer
        )
        days = {one.day for one in find_dates(answer.text, self._today())}
        if is_beside or (search.due is not None and search.due not in days):
            log.info("beside_the_question")
            return found
        return replace(found, answer=replace(answer, uncertain=found.answer.uncertain))

    async def _write(
        self,
        question: str,
        language: str,
        passages: Sequence[Passage],
        earlier: Exchange | None,
    ) -> Completion:
        prompt = build_prompt(
            question,
            passages,
            language,
            today=self._today(),
            context=await self._model.context(),
            max_tokens=self._settings.llm_max_tokens,
            earlier=earlier,
            day_first={one.file: self._is_day_first(one) for one in passages},
            count=self._model.estimate_tokens,
        )
        return await self._model.write(prompt)

    def _is_beside(self, question: str, language: str, written: Answer, quoted: Answer) -> bool:
        """Whether what the model's words rest on is about less of the question than a quotation."""

        def share(*sources: Source) -> float:
            text = "\n".join(f"{one.heading or ''}\n{one.quotation}" for one in sources)
            return self._retriever.share(question, language, [text])

        best = max(map(share, quoted.sources), default=0.0)
        return share(*written.sources) < _WRITTEN_SHARE * best

    def _check(
        self, written: str, passages: Sequence[Passage], question: str, language: str
    ) -> Checked:
        return check(
            written,
            passages,
            question,
            language,
            today=self._today(),
            similarity=self._retriever.similarity,
        )

    def _place(self, question: str, language: str, hit: Hit) -> tuple[int, int]:
        """Where in a passage to quote from."""
        begin, end = best_window(question, language, hit)
        if scope_of(question) is Scope.LIST:
            # From its first item on, which may stand paragraphs before.
            begin = hit.passage.section_at(begin)[0]
        return begin, end

    def _places(
        self, question: str, language: str, hits: Sequence[Hit], scope: Scope
    ) -> list[Place]:
        """Where to quote the best hits: first statements that have the kind of thing asked for.

        For a list a table that was cut is quoted whole.
        """
        places = {hit.row: self._place(question, language, hit) for hit in hits}
        has_thing = looks_for(question, language)
        is_clear = sought_by(question) in CLEAR_FORMS
        may_ask = mentions_exercises(question)

        def weighed(hit: Hit) -> Hit:
            (begin, end), passage = places[hit.row], hit.passage
            said = passage.text[begin:end]
            first, _, heading = passage.section_at(begin)
            share = 1.0
            if is_title(said.strip()) or (
                not may_ask and is_exercise(heading, said, passage.text[first:begin])
            ):
                share *= _EXERCISE_SHARE
            if is_clear and not has_thing(said, passage.language):
                share *= _LACKING_SHARE
            return replace(hit, score=hit.score * share)

        hits = sorted(map(weighed, hits), key=lambda hit: -hit.score)
        passages = self._retriever.generation.passages
        found: dict[int, Place] = {}
        for hit in _best(hits, MOST_QUOTED[scope], least=1):
            parts = self._retriever.table_parts(hit.row)
            for row in parts if scope is Scope.LIST else (hit.row,):
                begin, end = places[row] if row == hit.row else (0, len(passages[row].text))
                place = Place(
                    passages[row],
                    begin,
                    end,
                    is_continuation=row > parts[0],
                    is_continued=row < parts[-1],
                    following=self._retriever.following(row),
                )
                found.setdefault(row, place)
        return list(found.values())

    def _shown(self, hits: Sequence[Hit], scope: Scope) -> tuple[Passage, ...]:
        """What the model reads, in document order: its cache serves the same run again."""
        # What the model cannot read would only confuse it.
        readable = [hit for hit in hits if hit.passage.language in self._settings.llm_languages]
        chosen = readable or list(hits)
        if scope is Scope.POINT:
            chosen = _best(chosen, MOST_SHOWN, LEAST_SHOWN)
        return self._retriever.whole({hit.row for hit in chosen})

    def _today(self) -> date:
        return self._clock().astimezone(ZoneInfo(self._settings.course_timezone)).date()

    def _can_write(self, language: str, found: Explanation) -> bool:
        """Whether the model writes the language of the answer and reads the best passage's."""
        return {language, found.hits[0].passage.language} <= set(self._settings.llm_languages)


def _best(hits: Sequence[Hit], most: int, least: int) -> list[Hit]:
    """At most ``most`` hits; beyond ``least``, those whose score comes near the best's."""
    return [
        hit
        for rank, hit in enumerate(hits[:most])
        if rank < least or hit.score >= NEAR_SHARE * hits[0].score
    ]


def not_covered(language: str, hits: Sequence[Hit]) -> Answer:
    """The answer that the course documents do not say it, with the closest that they treat."""
    fixed = wording(language)
    text = fixed.not_covered
    if hits and (heading := hits[0].passage.heading):
        topic = _NUMBERING.sub("", heading.split(PATH_SEPARATOR)[-1])
        place = fixed.place(replace(hits[0].passage, heading=None))
        text = f"{text}\n\n{fixed.closest.format(topic=topic, place=place)}"
    return Answer(text, language, Outcome.NOT_COVERED)


def _without_unfinished(text: str) -> str:
    """Without the last sentence, where it has no end."""
    return re.sub(r"[^.!?…]*$", "", text)


def _cite(
    statements: Sequence[Statement],
    passages: Sequence[Passage],
    language: str,
    model: str,
    first: int,
) -> Answer:
    """The answer with its citations numbered in the order of its sources, from ``first`` on."""
    cited = list(dict.fromkeys(statement.passage for statement in statements))
    sources = []
    for at in cited:
        spoken = passages[at].language
        grounds = [statement.ground for statement in statements if statement.passage == at]
        words = {term for ground in grounds for term in terms(ground, spoken)}
        quoted = quotation(passages[at].text, words, spoken, QUOTATION_CHARACTERS)
        sources.append(source_of(passages[at], quoted, passages[at].text.find(quoted)))
    text = " ".join(
        _with_mark(statement.text, cited.index(statement.passage) + first)
        for statement in statements
    )
    return Answer(text, language, Outcome.ANSWERED, tuple(sources), model)


def _with_mark(sentence: str, number: int) -> str:
    sentence = unlike_a_mark(sentence)
    end = sentence[-1] if sentence[-1] in ".!?…" else "."
    return f"{sentence.rstrip('.!?…')} [{number}]{end}"


def _together(questions: Sequence[str], parts: Sequence[Explanation]) -> Explanation:
    """One answer to several questions, each under its question."""
    fixed = wording(parts[0].answer.language)
    texts = []
    sources: list[Source] = []
    for number, (question, part) in enumerate(zip(questions, parts, strict=True), start=1):
        title = fixed.part.format(number=number, question=question)
        texts.append(f"{title}\n\n{part.answer.text}")
        sources += part.answer.sources
    outcomes = {part.answer.outcome for part in parts}
    ranking = (Outcome.ANSWERED, Outcome.QUOTED, Outcome.NOT_COVERED)
    # Scores of different searches cannot be compared: the best of each come first.
    ranked = zip_longest(*(part.hits for part in parts))
    return Explanation(
        Answer(
            "\n\n".join(texts),
            parts[0].answer.language,
            next(outcome for outcome in ranking if outcome in outcomes),
            tuple(sources),
            next((part.answer.model for part in parts if part.answer.model), None),
            uncertain=any(part.answer.uncertain for part in parts),
        ),
        tuple(hit for rank in ranked for hit in rank if hit is not None),
        tuple(dict.fromkeys(passage for part in parts for passage in part.shown)),
        min(part.evidence for part in parts),
        sum(part.written for part in parts),
        sum(part.supported for part in parts),
        _sum(part.prompt_tokens for part in parts),
        _sum(part.completion_tokens for part in parts),
        sum(part.search_seconds for part in parts),
        sum(part.model_seconds for part in parts),
        next((part.fault for part in parts if part.fault), None),
        any(part.truncated for part in parts),
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
