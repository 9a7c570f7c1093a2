"""What the course's files say on a page, read anew: what citations are held against."""

from collections.abc import Sequence

from core.settings import Settings
from rag_worker.documents import no_document, read_file
from rag_worker.documents.ocr import RecognisedWord, RecognitionError, languages, recognise_page
from rag_worker.documents.sections import PATH_SEPARATOR
from rag_worker.indexing import document_limits

Page = int | None
"""A page or slide; None where the format has none."""


class CourseFiles:
    """The files as their parsers read them now, whatever the index holds. Each is read once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._read: dict[str, dict[Page, list[str]]] = {}

    def texts(self, file: str, page: Page) -> Sequence[str]:
        """The sections on a page, alone and joined; none where there is no such file or page."""
        if file not in self._read:
            self._read[file] = self._pages(file)
        sections = self._read[file].get(page, [])
        return [*sections, "\n".join(sections)]

    def _pages(self, file: str) -> dict[Page, list[str]]:
        folder = self._settings.document_location
        if folder is None or no_document(folder / file, folder):
            return {}
        path, seconds = folder / file, self._settings.ocr_page_timeout

        def recognise(
            pages: Sequence[int],
        ) -> dict[int, list[RecognisedWord] | RecognitionError]:
            found: dict[int, list[RecognisedWord] | RecognitionError] = {}
            for page in pages:
                try:
                    found[page] = recognise_page(path, page, seconds, languages())
                except RecognitionError as error:
                    found[page] = error
            return found

        limits = document_limits(self._settings)
        pages: dict[Page, list[str]] = {}
        former: str | None = None
        for document in read_file(path, file, limits, recognise if languages() else None).documents:
            place = document.metadata
            heading = place.get("heading")
            page = place.get("page") if place.get("page") is not None else place.get("slide")
            if heading and heading != former:
                # A quotation that goes on in the next section has its title.
                pages.setdefault(page, []).append(heading.split(PATH_SEPARATOR)[-1])
            former = heading
            pages.setdefault(page, []).append(document.page_content)
        return pages
