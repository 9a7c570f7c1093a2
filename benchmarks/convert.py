"""Public question sets to course folders and question files for ``consulta evaluate``.

    python -m benchmarks.convert squad xquad.es.json OUTPUT
    python -m benchmarks.convert squad xquad.en.json OUTPUT --questions-from xquad.es.json
    python -m benchmarks.convert squad xquad.en.json OUTPUT --language en --leave-out 0/5
    python -m benchmarks.convert chunks vol1_retrieval_es.json OUTPUT

``squad`` reads any file in SQuAD's form (XQuAD, SQuAD-es v1.1 and v2.0 among them), ``chunks`` the
physics book. OUTPUT gets the folder ``documents`` and the file ``questions.jsonl``; then

    DOCUMENT_LOCATION=OUTPUT/documents consulta evaluate OUTPUT/questions.jsonl --data OUTPUT/var

With ``--questions-from`` the questions are another file's with the same ids: XQuAD's Spanish ones
on its English text. With ``--leave-out I/N`` every Nth article, from the Ith, is not written: its
questions are those that the documents do not answer. N runs leave each article out once.
"""

import argparse
import json
import re
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fold:
    """The articles that are left out: every ``of``-th, from the ``first``, counted from 0."""

    first: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Fold":
        """Read ``I/N`` with 0 <= I < N and N > 1."""
        first, _, of = text.partition("/")
        if not (first.isdigit() and of.isdigit() and 0 <= int(first) < int(of) > 1):
            raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 0 to N - 1")
        return cls(int(first), int(of))

    def __contains__(self, number: int) -> bool:
        return number % self.of == self.first


@dataclass(frozen=True, slots=True)
class Course:
    """Texts of documents by file name, and the lines of the question file."""

    documents: dict[str, str]
    questions: list[Line]

    def write(self, output: Path) -> None:
        """Write both below ``output``; an older conversion there is replaced."""
        folder = output / "documents"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, text in self.documents.items():
            (folder / name).write_text(text, encoding="utf-8")
        lines = (json.dumps(question, ensure_ascii=False) for question in self.questions)
        (output / "questions.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def from_squad(
    data: Line,
    language: str,
    *,
    asked: dict[str, str] | None = None,
    one_file_per: str = "article",
    left_out: Fold | None = None,
) -> Course:
    """A course from SQuAD's form.

    A document is an article, or with ``one_file_per`` "paragraph" each paragraph: then the file
    alone tells the gold passage, as in the usual measures of retrieval. The evidence of a question
    is the sentence around its answer. ``asked`` has other words, as in another language, for the
    questions by their id.
    """
    documents: dict[str, str] = {}
    questions: list[Line] = []
    for number, article in enumerate(data["data"]):
        title = f"{number:03d}-{_file_name(article.get('title', ''))}".rstrip("-")
        is_left_out = left_out is not None and number in left_out
        for at, paragraph in enumerate(article["paragraphs"]):
            name = f"{title}-{at:02d}.txt" if one_file_per == "paragraph" else f"{title}.txt"
            context = paragraph["context"].lstrip("\ufeff")
            moved = len(paragraph["context"]) - len(context)
            if not is_left_out:
                documents[name] = (
                    f"{documents[name]}\n\n{context}" if name in documents else context
                )
            for item in paragraph["qas"]:
                line: Line = {
                    "id": item["id"],
                    "question": item["question"].strip(),
                    "language": language,
                }
                if asked is not None:
                    line["question"] = asked[item["id"]]
                if is_left_out:
                    line |= {"answerable": False, "kind": "article left out"}
                elif item.get("is_impossible"):
                    line |= {"answerable": False, "kind": "near miss"}
                else:
                    answers = [a for a in item["answers"] if a["text"].strip()]
                    if not answers:
                        continue  # The translation lost it.
                    line |= {
                        "document": name,
                        "answers": list(dict.fromkeys(a["text"] for a in answers)),
                        "kind": "answerable",
                    }
                    if one_file_per == "article":
                        line["evidence"] = _sentence(context, answers[0], moved)
                questions.append(line)
    return Course(documents, questions)


def from_chunks(data: Line) -> Course:
    """A course from the physics book: a document is a section, and it alone is gold."""
    documents: dict[str, str] = {}
    for chunk, section in zip(data["chunks"], data["cm"], strict=True):
        # Every chunk begins with its headings, "Section. Subsection: ".
        heading, _, text = chunk.partition(": ")
        name = f"{data['modules'][section]}.md"
        documents[name] = f"{documents.get(name, '')}## {heading}\n\n{text}\n\n"
    questions = [
        {
            "id": f"{number:03d}",
            "question": question,
            "language": "es",
            "document": f"{data['modules'][section]}.md",
        }
        for number, (question, section) in enumerate(
            zip(data["questions"], data["qm"], strict=True)
        )
    ]
    return Course(documents, questions)


def _questions(data: Line) -> Iterator[tuple[str, str]]:
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            for item in paragraph["qas"]:
                yield item["id"], item["question"].strip()


def _sentence(context: str, answer: Line, moved: int) -> str:
    """The sentence around an answer."""
    start = answer["answer_start"] - moved
    end = start + len(answer["text"])
    breaks = [match.end() for match in re.finditer(r"[.!?]\s+(?=[¿¡\"«]?[A-ZÁÉÍÓÚÑ0-9])", context)]
    first = max((at for at in breaks if at <= start), default=0)
    last = min((at for at in breaks if at >= end), default=len(context))
    return context[first:last].strip()


def _file_name(title: str) -> str:
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_title.lower()).strip("-")


def main() -> None:
    """Convert what the arguments name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("form", choices=["squad", "chunks"])
    parser.add_argument("file", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--language", default="es", help="of the questions (es or en)")
    parser.add_argument("--questions-from", type=Path, help="a file with the same ids")
    parser.add_argument("--one-file-per", choices=["article", "paragraph"], default="article")
    parser.add_argument("--leave-out", type=Fold.parse, metavar="I/N")
    arguments = parser.parse_args()
    data = json.loads(arguments.file.read_text("utf-8"))
    if arguments.form == "chunks":
        course = from_chunks(data)
    else:
        other = arguments.questions_from
        course = from_squad(
            data,
            arguments.language,
            asked=dict(_questions(json.loads(other.read_text("utf-8")))) if other else None,
            one_file_per=arguments.one_file_per,
            left_out=arguments.leave_out,
        )
    course.write(arguments.output)
    print(f"{len(course.documents)} documents, {len(course.questions)} questions")


if __name__ == "__main__":
    main()
