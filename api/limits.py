"""How often a mail that anybody can ask for is sent."""

import time
from collections import deque

MAILS_PER_HOUR = 3


class MailLimit:
    """How many mails of one kind each account was sent within the last hour.

    Kept in memory, for accounts that exist only: a nuisance is to be bounded, not a secret kept.
    """

    def __init__(self) -> None:
        self._sent: dict[str, deque[float]] = {}

    def take(self, account: str) -> bool:
        """Count one more; False when there have been enough."""
        sent = self._sent.setdefault(account, deque())
        while sent and sent[0] < time.monotonic() - 3600:
            sent.popleft()
        if len(sent) >= MAILS_PER_HOUR:
            return False
        sent.append(time.monotonic())
        return True

    def give_back(self, account: str) -> None:
        """The one that was taken last was not sent."""
        self._sent[account].pop()
        if not self._sent[account]:
            del self._sent[account]
