"""Signed links in e-mails: whoever has one was sent it, and nobody can make one."""

from datetime import timedelta
from enum import StrEnum
from typing import Any

from itsdangerous import BadData, SignatureExpired, URLSafeTimedSerializer

from core.settings import Settings


class LinkPurpose(StrEnum):
    """What a link is good for; one made for something else does not open it."""

    CONFIRM = "confirm"
    FEEDBACK = "feedback"


LIFETIMES = {
    LinkPurpose.CONFIRM: timedelta(days=7),
    LinkPurpose.FEEDBACK: timedelta(days=365),
}


class InvalidLinkError(Exception):
    """The link was changed, is for something else, or has ended."""


class ExpiredLinkError(InvalidLinkError):
    """The link is ours, and its time is over."""


class Links:
    """Makes the links in e-mails, and reads them again."""

    def __init__(self, settings: Settings) -> None:
        """Needs SECRET_KEY."""
        assert settings.secret_key is not None
        self._secret = settings.secret_key.get_secret_value()
        self._base = settings.public_url

    def confirmation(self, user_id: int, email: str) -> str:
        """Where a student confirms that the address is his own; for a week."""
        return self._url(LinkPurpose.CONFIRM, [user_id, email])

    def feedback(self, number: int) -> str:
        """Where the recipient of the answer to question ``number`` says whether it helped."""
        return self._url(LinkPurpose.FEEDBACK, number)

    def read(self, purpose: LinkPurpose, token: str) -> Any:
        """What was signed: ``[user id, address]`` to confirm, the question's number for feedback.

        Raises:
            ExpiredLinkError: it has ended.
            InvalidLinkError: it is not ours, or is for something else.
        """
        try:
            return self._serializer(purpose).loads(
                token, max_age=int(LIFETIMES[purpose].total_seconds())
            )
        except SignatureExpired as error:
            raise ExpiredLinkError(type(error).__name__) from None
        except BadData as error:
            raise InvalidLinkError(type(error).__name__) from None

    def _url(self, purpose: LinkPurpose, payload: Any) -> str:
        return f"{self._base}/{purpose}/{self._serializer(purpose).dumps(payload)}"

    def _serializer(self, purpose: LinkPurpose) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self._secret, salt=f"consulta {purpose}")
