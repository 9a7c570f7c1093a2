"""Questions to answers: documents, their index, retrieval, and the language model."""
