"""What a queue owes to each question: oldest first, one worker, and a limit for each student.

Pure arithmetic, to compare a real replay with.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

EXAM_HOUR = Path(__file__).with_name("exam-hour-arrivals.csv")
"""The seconds at which 42 students of a university course asked 564 questions in one exam hour, as
published with sigmedia/ai-teaching-assistant: times and anonymous numbers only."""

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A question: when it is asked (seconds), and by which student."""

    second: float
    student: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a course sets for an exam day."""

    waiting: int = 3
    hourly: int = 15


def read_arrivals(file: Path = EXAM_HOUR) -> list[Arrival]:
    """The recorded questions, in the order of time."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [Arrival(float(row["second"]), int(row["student"])) for row in csv.DictReader(lines)]
    return sorted(rows, key=lambda row: row.second)


def served(arrivals: Iterable[float], seconds: Sequence[float]) -> list[float]:
    """When each is answered, if they are served in this order by one worker.

    ``seconds`` are what each takes.
    """
    free, ends = -math.inf, []
    for arrival, needed in zip(arrivals, seconds, strict=True):
        free = max(free, arrival) + needed
        ends.append(free)
    return ends


def accepted(
    arrivals: Sequence[Arrival], seconds: Callable[[int], float], limits: Limits
) -> dict[int, float]:
    """When each question that the limits let in is answered, by its index.

    Args:
        arrivals: in the order of time.
        seconds: what the question of this index takes.
        limits: of each student.
    """
    free, answered = -math.inf, {}
    ends: defaultdict[int, list[float]] = defaultdict(list)
    asked: defaultdict[int, list[float]] = defaultdict(list)
    for index, arrival in enumerate(arrivals):
        waiting = sum(end > arrival.second for end in ends[arrival.student])
        recent = sum(moment > arrival.second - _HOUR for moment in asked[arrival.student])
        if waiting >= limits.waiting or recent >= limits.hourly:
            continue
        free = max(free, arrival.second) + seconds(index)
        answered[index] = free
        ends[arrival.student].append(free)
        asked[arrival.student].append(arrival.second)
    return answered
