"""What is wrong with a server, by its own words, and the sentence that mends it."""

from pymongo.errors import OperationFailure, PyMongoError, ServerSelectionTimeoutError
from sqlalchemy.exc import SQLAlchemyError

_LONGEST = 200

# By MySQL's number of the error; MariaDB has the same.
_USERS: dict[object, str] = {
    1021: "make room on the disk of the database",
    1044: "let it use the database: GRANT ALL ON name.* TO user",
    1045: "check DB_USER and DB_PASS (or DATABASE_URL); docs/operations.md, Change a secret, says "
    "how to make both places agree",
    1049: "create it (CREATE DATABASE name), or check DB_NAME (or DATABASE_URL)",
    1114: "make room on the disk of the database",
    1142: "let it use the tables: GRANT ALL ON name.* TO user",
    1698: "check DB_USER and DB_PASS (or DATABASE_URL): this user may not log in by a password",
    2003: "start the database, or check DB_HOST and DB_PORT (or DATABASE_URL)",
    2013: "it hangs, or is no MySQL: look into its log, restart it, or check DB_PORT (or "
    "DATABASE_URL)",
}
_USERS_OTHERWISE = "start it, or check DATABASE_URL or the DB_ settings"


_MAIL = {
    "CERTIFICATE_VERIFY_FAILED": "the mail server's certificate is of an authority that is not "
    "known here, or for another name: set SSL_CERT_FILE to the file of the institution's authority "
    "(docs/operations.md), or check {part}_SERVER",
    "WRONG_VERSION_NUMBER": "that port does not begin with TLS: set {part}_TLS=starttls, or check "
    "{part}_PORT",
    "waiting for server ready": "a port that says nothing often begins with TLS: set "
    "{part}_TLS=tls, or check {part}_PORT",
    "timed out": "a firewall may be between, or the port begins with TLS: check {part}_PORT and "
    "{part}_TLS",
    "Name or service not known": "check {part}_SERVER, or this machine's name server",
    "Malformed SMTP response": "that is no SMTP server: check SMTP_PORT",
    "authentication required": "put the account's password into passwords.json",
    "wants a login first": "put the account's password into passwords.json",
    "as the sender": "set {part}_USERNAME to an address that this account may send from",
    "AUTH extension is not supported": "that port takes no login, or only after TLS: 587 and 465 "
    "are for it; check SMTP_PORT and SMTP_TLS",
}
_MAIL_OTHERWISE = "start it, or check {part}_SERVER, {part}_PORT and {part}_TLS"


def of_users(error: SQLAlchemyError) -> str:
    """What the users' database says, and what mends it."""
    cause = getattr(error, "orig", None) or error
    number, *words = cause.args or (None,)
    reason = _one_line(words[0] if words else number or type(cause).__name__)
    return f"{reason}: {_USERS.get(number, _USERS_OTHERWISE)}."


def of_queue(error: PyMongoError) -> str:
    """What MongoDB or its client says, and what mends it."""
    match error:
        case ServerSelectionTimeoutError():
            # The rest describes the client.
            reason = _one_line(error).split(" (configured timeouts")[0].split(", Timeout:")[0]
            remedy = "start it, or check MONGO_HOST and MONGO_PORT (or MONGO_URL)"
        case OperationFailure(code=18):
            reason = "it does not accept the login"
            remedy = (
                "check MONGO_USER and MONGO_PASS (or MONGO_URL and its authSource); "
                "docs/operations.md, Change a secret, says how to make both places agree"
            )
        case OperationFailure(code=13):
            reason = "the login may not write to the database"
            remedy = "give MONGO_USER the role readWrite on MONGO_DB_NAME"
        case OperationFailure():
            reason = _one_line((error.details or {}).get("codeName") or error)
            remedy = "look into its log; a full disk is the usual cause"
        case _:
            # Without its words: they may quote a part of the password.
            reason = type(error).__name__
            remedy = "start it, or check MONGO_URL or the MONGO_ settings"
    return f"{reason}: {remedy}."


def of_mail(reason: str, part: str) -> str:
    """What mends that a mail server cannot be used; ``part`` is SMTP or IMAP."""
    found = (remedy for words, remedy in _MAIL.items() if words.lower() in reason.lower())
    return next(found, _MAIL_OTHERWISE).format(part=part)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:_LONGEST]
