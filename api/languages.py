"""Which of our languages a browser prefers."""

OURS = ("es", "en")


def preferred(accept_language: str, otherwise: str) -> str:
    """``es`` or ``en`` by an ``Accept-Language`` header; ``otherwise`` where it names neither."""
    weighted: list[tuple[float, int, str]] = []
    for place, entry in enumerate(accept_language.split(",")[:20]):
        tag, _, weight = entry.partition(";")
        language = tag.strip().lower().split("-")[0]
        if language in OURS:
            try:
                quality = float(weight.strip().removeprefix("q=") or 1)
            except ValueError:
                quality = 0.0
            weighted.append((-quality, place, language))
    return min(weighted)[2] if weighted else otherwise
