"""Why an e-mail did not leave, by what follows from it."""


class DeliveryError(Exception):
    """The e-mail was not accepted; the message says why, in one line for staff."""


class UndeliverableError(DeliveryError):
    """It will never be accepted: another attempt is no use."""


class TemporaryError(DeliveryError):
    """It was not accepted this time: a later attempt may do."""


class ServerError(DeliveryError):
    """The mail server is away or does not let us in: no e-mail of this account can leave now.

    That is nobody's fault among the recipients, so no e-mail becomes undeliverable by it.
    """
