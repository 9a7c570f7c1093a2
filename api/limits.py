"""How often a temporary password is sent."""

import time
from collections import deque

RECOVERY_MAILS_PER_HOUR = 3


class RecoveryLimit:
    """How many temporary passwords each account was sent within the last hour.

    Kept in memory, for accounts that exist only: a nuisance is to be bounded, not a secret kept.
    """

    def __init__(self) -> None:
        self._sent: dict[str, deque[float]] = {}

    def allows(self, account: str) -> bool:
        """Whether one more may be sent."""
        sent = self._sent.get(account, deque())
        while sent and sent[0] < time.monotonic() - 3600:
            sent.popleft()
        return len(sent) < RECOVERY_MAILS_PER_HOUR

    def count(self, account: str) -> None:
        """One was sent."""
        self._sent.setdefault(account, deque()).append(time.monotonic())
