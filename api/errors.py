"""Errors: each class knows its status and its sentence; all replies are RFC 9457 problems."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from pydantic_core import PydanticCustomError
from pymongo.errors import ConnectionFailure, PyMongoError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from core import metrics

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
DATABASE_ERRORS = (PyMongoError, OperationalError, InterfaceError, PoolTimeoutError)
"""What the drivers of both databases raise when a server is away or its disk is full."""

logger = structlog.get_logger()


class FieldProblem(BaseModel):
    """One field that is not as it should be."""

    field: str
    problem: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(description="Names the kind of problem, for programs")
    title: str
    status: int
    detail: str = Field(description="What is wrong and what to do, for people")
    errors: list[FieldProblem] | None = Field(None, description="The fields that are wrong")


class ApiError(HTTPException):
    """An error of this API; raise a subclass. ``values`` fill the sentence's placeholders."""

    status: ClassVar[int]
    title: ClassVar[str]
    sentence: ClassVar[str]
    sentence_es: ClassVar[str]
    headers_always: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *, headers: Mapping[str, str] | None = None, **values: Any) -> None:
        super().__init__(self.status, headers={**self.headers_always, **(headers or {})})
        self.values = values

    @classmethod
    def kind(cls) -> str:
        """The problem's ``type``, made from the class's name."""
        words = re.findall("[A-Z][a-z]*", cls.__name__.removesuffix("Error"))
        return "urn:consulta:problem:" + "-".join(words).lower()

    def problem(self, *, spanish: bool = False) -> dict[str, Any]:
        """The reply's body, in Spanish or in English."""
        sentence = self.sentence_es if spanish else self.sentence
        return {
            "type": self.kind(),
            "title": self.title,
            "status": self.status,
            "detail": sentence.format(**self.values),
        }


# What is wrong with the request itself.


class MalformedBodyError(ApiError):
    """The body is not JSON, not a form, or not in a known encoding."""

    status = 400
    title = "Malformed body"
    sentence = "The body cannot be read: send JSON in UTF-8 (or a form, to /login)."
    sentence_es = "No se puede leer el contenido: envía JSON en UTF-8 (o un formulario, a /login)."


class EncodedBodyError(ApiError):
    """The body is compressed: it may unpack to anything."""

    status = 415
    title = "Encoded body"
    sentence = "The body must not be compressed: send it without Content-Encoding."
    sentence_es = "El contenido no puede ir comprimido: envíalo sin Content-Encoding."


class MalformedRequestError(ApiError):
    """It is not HTTP."""

    status = 400
    title = "Malformed request"
    sentence = "This is not an HTTP/1.1 request: /docs shows what can be asked."
    sentence_es = "Esto no es una petición HTTP/1.1: en /docs se ve qué se puede pedir."


class HeadersTooLargeError(ApiError):
    """More bytes than any browser sends."""

    status = 431
    title = "Headers too large"
    sentence = "The address and the headers of this request are too long: send 32 KiB at most."
    sentence_es = "La dirección y las cabeceras son demasiado largas: envía 32 KiB como máximo."


class RequestTooSlowError(ApiError):
    """The request was not whole in time."""

    status = 408
    title = "Request too slow"
    sentence = "The request did not arrive in time: send it again."
    sentence_es = "La petición no ha llegado a tiempo: envíala otra vez."


class UnknownPathError(ApiError):
    """No such path."""

    status = 404
    title = "Not found"
    sentence = "There is nothing at this address: /docs shows all that there is."
    sentence_es = "No hay nada en esta dirección: en /docs está todo lo que hay."


class MethodNotAllowedError(ApiError):
    """The path exists, the method does not."""

    status = 405
    title = "Method not allowed"
    sentence = "This address does not take this method: /docs shows which it takes."
    sentence_es = "Esta dirección no admite este método: en /docs se ve cuáles admite."


class BodyTooLargeError(ApiError):
    """More bytes than the path takes."""

    status = 413
    title = "Body too large"
    sentence = "This is too long: send {limit_kib} KiB at most."
    sentence_es = "Es demasiado largo: envía {limit_kib} KiB como máximo."

    def __init__(self, limit: int = 65_536) -> None:
        super().__init__(headers={"Connection": "close"}, limit_kib=limit // 1024)


FIELD_PROBLEMS: dict[str, tuple[str, str]] = {
    "missing": ("is missing", "falta"),
    "extra_forbidden": ("is not a field of this request", "no es un campo de esta petición"),
    "string_type": ("must be text", "debe ser un texto"),
    "string_unicode": ("is not valid Unicode", "no es Unicode válido"),
    "string_too_short": (
        "needs {min_length} characters or more",
        "necesita {min_length} caracteres o más",
    ),
    "string_too_long": (
        "may have {max_length} characters at most",
        "puede tener {max_length} caracteres como máximo",
    ),
    "too_long": ("may have {max_length} items at most", "puede tener {max_length} como máximo"),
    "int_type": ("must be a whole number", "debe ser un número entero"),
    "int_parsing": ("must be a whole number", "debe ser un número entero"),
    "float_parsing": ("must be a number", "debe ser un número"),
    "bool_parsing": ("must be true or false", "debe ser true o false"),
    "int_parsing_size": ("is too large a number", "es un número demasiado grande"),
    "greater_than_equal": ("must be {ge} or more", "debe ser {ge} o más"),
    "less_than_equal": ("must be {le} or less", "debe ser {le} o menos"),
    "literal_error": ("must be {expected}", "debe ser {expected}"),
    "enum": ("must be {expected}", "debe ser {expected}"),
    "model_attributes_type": (
        "must be a JSON object, sent as application/json",
        "debe ser un objeto JSON, enviado como application/json",
    ),
    "plain_text": (
        "has control characters or characters that reverse the text: type it instead of pasting it",
        "tiene caracteres de control o que invierten el texto: escríbelo en vez de pegarlo",
    ),
    "username": (
        "takes letters without accents, digits and . _ -; a letter or a digit comes first",
        "admite letras sin tilde, cifras y . _ -; empieza por una letra o una cifra",
    ),
    "email": (
        "is not a plain e-mail address such as name@university.es",
        "no es una dirección de correo sencilla como nombre@universidad.es",
    ),
    "password_blank": (
        "needs more than spaces",
        "necesita algo más que espacios",
    ),
    "password_is_name": (
        "must not be made of your user name or your e-mail address",
        "no puede estar hecha con tu nombre de usuario o tu correo",
    ),
    "password_common": (
        "is one of the most common passwords, which are tried first: a short sentence is safe",
        "es de las contraseñas más comunes, las primeras que se prueban: usa una frase corta",
    ),
    "password_unchanged": ("must differ from the old one", "debe ser distinta de la anterior"),
    "passwords_differ": ("must equal new_password", "debe ser igual a new_password"),
}
"""By pydantic's error type: what is wrong with the field, in English and in Spanish."""

_OTHERWISE = ("is not valid", "no es válido")


def invalid(kind: str) -> PydanticCustomError:
    """An error for a validator to raise; ``kind`` is a key of ``FIELD_PROBLEMS``."""
    return PydanticCustomError(kind, "{problem}", {"problem": FIELD_PROBLEMS[kind][0]})


class InvalidInputError(ApiError):
    """Fields are missing, unknown or wrong. What was sent is never repeated in the reply."""

    status = 422
    title = "Invalid input"
    sentence = "{field}: {problem}."
    sentence_es = "{field}: {problem}."

    def __init__(self, errors: Sequence[tuple[str, str, Mapping[str, Any]]]) -> None:
        super().__init__()
        self.errors = errors

    @classmethod
    def of(cls, field: str, kind: str) -> "InvalidInputError":
        """One field, and what is wrong with it: a key of ``FIELD_PROBLEMS``."""
        return cls([(field, kind, {})])

    @classmethod
    def from_validation(cls, error: RequestValidationError) -> "InvalidInputError":
        """What FastAPI and pydantic found."""
        return cls([(_field(e["loc"]), e["type"], e.get("ctx") or {}) for e in error.errors()])

    def problem(self, *, spanish: bool = False) -> dict[str, Any]:
        """The reply's body; its sentence is about the first field."""
        errors = [
            {
                "field": field,
                "problem": FIELD_PROBLEMS.get(kind, _OTHERWISE)[spanish].format(**context),
            }
            for field, kind, context in self.errors
        ]
        self.values = errors[0]
        return {**super().problem(spanish=spanish), "errors": errors}


def _field(location: Sequence[str | int]) -> str:
    # ("body", "sources", 0, "page"); an unknown field's name is the sender's and may be anything.
    name = ".".join(map(str, location[1:])) or str(location[0])
    return name.encode("ascii", "backslashreplace").decode()[:80]


# What came too often.


def _in_words(seconds: int) -> tuple[str, str]:
    """A waiting time in English and in Spanish, rounded up."""
    for length, english, spanish in ((3600, "hour", "hora"), (60, "minute", "minuto")):
        if seconds > length:
            count = math.ceil(seconds / length)
            return f"{count} {english}s", f"{count} {spanish}s"
        if seconds == length:
            return f"1 {english}", f"1 {spanish}"
    plural = "" if seconds == 1 else "s"
    return f"{seconds} second{plural}", f"{seconds} segundo{plural}"


class TooManyRequestsError(ApiError):
    """Enough for now; the sentence says when there may be more, and so does ``Retry-After``."""

    status = 429

    def __init__(self, seconds: float = 60, **values: Any) -> None:
        self._seconds = max(1, math.ceil(seconds))
        super().__init__(headers={"Retry-After": str(self._seconds)}, **values)

    def problem(self, *, spanish: bool = False) -> dict[str, Any]:
        """The reply's body."""
        self.values = {**self.values, "when": _in_words(self._seconds)[spanish]}
        return super().problem(spanish=spanish)


class TooManyLoginsError(TooManyRequestsError):
    """Wrong passwords for one account, or a name that nobody has: both alike."""

    title = "Too many logins"
    sentence = (
        "Too many wrong passwords: try again in {when}. "
        "A temporary password from POST /auth/forgot-password works at once."
    )
    sentence_es = (
        "Demasiadas contraseñas erróneas: repite dentro de {when}. "
        "Una contraseña temporal de POST /auth/forgot-password sirve enseguida."
    )

    def problem(self, *, spanish: bool = False) -> dict[str, Any]:
        """With what Swagger's Authorize dialog shows."""
        problem = super().problem(spanish=spanish)
        return {**problem, "error": "slow_down", "error_description": problem["detail"]}


class TooManyMailsError(TooManyRequestsError):
    """Enough mails of one kind within an hour."""

    title = "Too many mails"
    sentence = (
        "This mail was asked for {limit} times within an hour: look into the spam folder, "
        "or try again in {when}."
    )
    sentence_es = (
        "Este correo ya se ha pedido {limit} veces en una hora: mira en la carpeta de spam, "
        "o repite dentro de {when}."
    )

    def __init__(self, seconds: float = 3600, limit: int = 3) -> None:
        super().__init__(seconds, limit=limit)


class TooManyQuestionsError(TooManyRequestsError):
    """Too many unanswered questions of one student."""

    title = "Too many questions waiting"
    sentence = (
        "You have {limit} questions without an answer, the most there may be: "
        "ask again when one is answered, in about {when}."
    )
    sentence_es = (
        "Tienes {limit} preguntas sin respuesta, el máximo: "
        "pregunta cuando llegue alguna, dentro de unos {when}."
    )

    def __init__(self, seconds: float = 60, limit: int = 10) -> None:
        super().__init__(seconds, limit=limit)


class TooManyQuestionsThisHourError(TooManyRequestsError):
    """One student has asked enough within an hour."""

    title = "Too many questions within an hour"
    sentence = "You have asked {limit} questions within an hour, the most: again in {when}."
    sentence_es = "Has hecho {limit} preguntas en una hora, el máximo: repite dentro de {when}."

    def __init__(self, seconds: float = 3600, limit: int = 30) -> None:
        super().__init__(seconds, limit=limit)


class BusyNetworkError(TooManyRequestsError):
    """Too much from one network address, whoever it is."""

    title = "Too many requests from one address"
    sentence = "Too many requests come from your network address: try again in {when}."
    sentence_es = "Llegan demasiadas peticiones desde tu red: repite dentro de {when}."


# Who may call.


class NotLoggedInError(ApiError):
    """No token, or one that is forged, expired or ended."""

    status = 401
    title = "Not logged in"
    sentence = (
        "You are not logged in, or your login has ended: "
        "press Authorize (or POST /login) and try again."
    )
    sentence_es = "No has iniciado sesión o ha caducado: pulsa Authorize (o POST /login) y repite."
    headers_always: ClassVar = {"WWW-Authenticate": "Bearer"}


class NotAWorkerError(ApiError):
    """No worker's token, or one that was revoked."""

    status = 401
    title = "Not a worker"
    sentence = "This needs a worker's token: `consulta users worker-token NAME` makes one."
    sentence_es = "Hace falta un token de worker: `consulta users worker-token NOMBRE` crea uno."
    headers_always: ClassVar = {"WWW-Authenticate": "Bearer"}


class LoginError(ApiError):
    """A refused login; Swagger's Authorize dialog shows OAuth2's ``error_description``."""

    status = 401
    headers_always: ClassVar = {"WWW-Authenticate": "Bearer"}

    def problem(self, *, spanish: bool = False) -> dict[str, Any]:
        """The reply's body, with OAuth2's fields (RFC 6749) beside the problem's."""
        problem = super().problem(spanish=spanish)
        return {**problem, "error": "invalid_grant", "error_description": problem["detail"]}


class WrongCredentialsError(LoginError):
    """Unknown user, wrong password or disabled account: all alike."""

    title = "Wrong name or password"
    sentence = (
        "The user name (or e-mail) or the password is wrong. "
        "If you forgot your password: POST /auth/forgot-password."
    )
    sentence_es = (
        "El nombre de usuario (o correo) o la contraseña no son correctos. "
        "Si has olvidado tu contraseña: POST /auth/forgot-password."
    )


class TemporaryPasswordAlreadyUsedError(LoginError):
    """The right temporary password, for the second time."""

    title = "Temporary password already used"
    sentence = (
        "This temporary password has been used and works only once: "
        "get a new one with POST /auth/forgot-password."
    )
    sentence_es = (
        "Esta contraseña temporal ya se ha usado y solo sirve una vez: "
        "pide otra con POST /auth/forgot-password."
    )


class PasswordChangeRequiredError(ApiError):
    """Logged in with a temporary password."""

    status = 403
    title = "Password change required"
    sentence = (
        "You logged in with a temporary password: "
        "choose your own first, with POST /auth/change-password."
    )
    sentence_es = (
        "Has entrado con una contraseña temporal: "
        "elige antes la tuya, con POST /auth/change-password."
    )


class WrongOldPasswordError(ApiError):
    """The old password does not fit."""

    status = 403
    title = "Wrong old password"
    sentence = "old_password is not your present password: nothing was changed."
    sentence_es = "old_password no es tu contraseña actual: no se ha cambiado nada."


# Accounts and questions.


class EmailDomainNotAllowedError(ApiError):
    """The address is of a domain that may not register."""

    status = 403
    title = "E-mail domain not allowed"
    sentence = "Only addresses of these domains may register: {domains}. Use yours of the course."
    sentence_es = "Solo se admiten direcciones de: {domains}. Usa la que tienes para el curso."

    def __init__(self, domains: Sequence[str] = ("uni.example",)) -> None:
        super().__init__(domains=", ".join(domains))


class UnconfirmedEmailError(ApiError):
    """The student has not opened the link in his mailbox, and must."""

    status = 403
    title = "E-mail not confirmed"
    sentence = (
        "Confirm your e-mail address first: open the link in the mail that you were sent. "
        "POST /auth/send-confirmation sends it again."
    )
    sentence_es = (
        "Confirma antes tu dirección: abre el enlace del correo que has recibido. "
        "POST /auth/send-confirmation lo envía otra vez."
    )


class BrokenLinkError(ApiError):
    """A link from an e-mail that is not whole, or whose account or answer is not there any more."""

    status = 404
    title = "Broken link"
    sentence = (
        "This link is not complete or leads nowhere any more: open it from the e-mail once more, "
        "or copy all of it into the browser."
    )
    sentence_es = (
        "Este enlace no está completo o ya no lleva a ningún sitio: ábrelo otra vez desde el "
        "correo, o cópialo entero en el navegador."
    )


class OldConfirmationError(ApiError):
    """The link to confirm an address has ended."""

    status = 410
    title = "Link has ended"
    sentence = (
        "This link has ended: log in at /docs and get a new one with POST /auth/send-confirmation."
    )
    sentence_es = (
        "Este enlace ha caducado: entra en /docs y pide otro con POST /auth/send-confirmation."
    )


class OldFeedbackError(ApiError):
    """The link to rate an answer has ended."""

    status = 410
    title = "Link has ended"
    sentence = "This link has ended, for the answer is more than a year old. Ask again at /docs."
    sentence_es = "Este enlace ha caducado: la respuesta tiene más de un año. Pregunta otra vez."


class EmailTakenError(ApiError):
    """The address has an account."""

    status = 409
    title = "E-mail taken"
    sentence = (
        "This e-mail address already has an account: press Authorize to log in, "
        "or get a temporary password with POST /auth/forgot-password."
    )
    sentence_es = (
        "Este correo ya tiene una cuenta: pulsa Authorize para entrar, "
        "o pide una contraseña temporal con POST /auth/forgot-password."
    )


class UsernameTakenError(ApiError):
    """The name is somebody's."""

    status = 409
    title = "User name taken"
    sentence = "This user name is taken: choose another one, or press Authorize if it is yours."
    sentence_es = "Este nombre de usuario ya existe: elige otro, o pulsa Authorize si es el tuyo."


class UnknownQuestionError(ApiError):
    """No such question, or another student's."""

    status = 404
    title = "Unknown question"
    sentence = "You have no question with this number: GET /questions lists yours."
    sentence_es = "No tienes ninguna pregunta con este número: GET /questions muestra las tuyas."


class IdempotencyKeyReusedError(ApiError):
    """The key came with another text before."""

    status = 422
    title = "Idempotency key reused"
    sentence = "This Idempotency-Key belongs to another question of yours: send a new key."
    sentence_es = "Esta Idempotency-Key ya es de otra pregunta tuya: envía una clave nueva."


class ClaimLostError(ApiError):
    """The claim ran out and another worker has the question, or it is answered."""

    status = 409
    title = "Claim lost"
    sentence = "This claim is not held any more: drop the question and fetch another."
    sentence_es = "Esta reserva ya no es tuya: descarta la pregunta y pide otra."


# What is wrong here.


class InternalError(ApiError):
    """A fault of this program."""

    status = 500
    title = "Internal error"
    sentence = "Something went wrong here. It is logged; please tell the course staff."
    sentence_es = "Algo ha fallado aquí. Queda registrado; avisa al profesorado, por favor."


class UnavailableError(ApiError):
    """A database is away or cannot write."""

    status = 503
    title = "Temporarily unavailable"
    sentence = "The service cannot store or read anything just now: try again in a moment."
    sentence_es = "El servicio no puede guardar ni leer nada ahora: repite dentro de un momento."
    headers_always: ClassVar = {"Retry-After": str(RETRY_AFTER_SECONDS)}


_BY_STATUS: dict[int, type[ApiError]] = {
    400: MalformedBodyError,
    404: UnknownPathError,
    405: MethodNotAllowedError,
}


def problem_response(request: Request, error: ApiError) -> JSONResponse:
    """The reply, in Spanish if the browser prefers it."""
    spanish = request.headers.get("accept-language", "").lower().startswith("es")
    return JSONResponse(
        error.problem(spanish=spanish),
        error.status,
        {**(error.headers or {}), "Content-Language": "es" if spanish else "en"},
        MEDIA_TYPE,
    )


EXPECTED = (HTTPException, RequestValidationError, *DATABASE_ERRORS)
"""What a route may raise; anything else is a fault of this program."""


def api_error(error: Exception) -> ApiError:
    """The error of this API that one of ``EXPECTED`` stands for."""
    match error:
        case ApiError():
            return error
        case HTTPException():
            known = _BY_STATUS.get(error.status_code, MalformedBodyError)
            return known(headers=error.headers)
        case RequestValidationError():
            if any(e["type"] == "json_invalid" for e in error.errors()):
                return MalformedBodyError()
            return InvalidInputError.from_validation(error)
    is_queue = isinstance(error, PyMongoError)
    metrics.count_fault(metrics.Fault.QUEUE_AWAY if is_queue else metrics.Fault.USERS_AWAY)
    logger.warning("database unavailable", **describe_fault(error))
    return UnavailableError()


def add_handlers(app: FastAPI) -> None:
    """Turn every error of a route into a problem."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return problem_response(request, api_error(error))

    for kind in EXPECTED:
        app.add_exception_handler(kind, handle)


def describe_fault(error: BaseException) -> dict[str, str]:
    """What a log may say of a database's error: no message that can hold a student's data."""
    described = {"fault": type(error).__name__}
    if isinstance(error, OperationalError | InterfaceError):
        described["reason"] = str(error.orig)
    elif isinstance(error, ConnectionFailure):
        described["reason"] = str(error)[:200]
    elif isinstance(error, PyMongoError):
        details = getattr(error, "details", None) or {}
        described["reason"] = details.get("codeName") or f"code {getattr(error, 'code', None)}"
    return described


def responses(*errors: type[ApiError]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of the errors a route may reply with, each with an example."""
    documented: dict[int | str, dict[str, Any]] = {}
    for error in sorted(errors, key=lambda e: e.status):
        shown = InvalidInputError.of("input", "missing") if error is InvalidInputError else error()
        reply = documented.setdefault(
            error.status,
            {
                "description": error.title,
                "content": {
                    MEDIA_TYPE: {
                        "schema": {"$ref": "#/components/schemas/Problem"},
                        "examples": {},
                    }
                },
            },
        )
        if "Retry-After" in (shown.headers or {}):
            reply["headers"] = {
                "Retry-After": {
                    "description": "Seconds to wait before the next try",
                    "schema": {"type": "integer", "minimum": 1},
                }
            }
        if error.title not in reply["description"]:
            reply["description"] += f"; or: {error.title}"
        reply["content"][MEDIA_TYPE]["examples"][error.title] = {"value": shown.problem()}
    return documented


BODY: tuple[type[ApiError], ...] = (
    MalformedBodyError,
    BodyTooLargeError,
    EncodedBodyError,
    InvalidInputError,
)
"""The errors of every route that takes a body."""
STUDENT: tuple[type[ApiError], ...] = (
    NotLoggedInError,
    PasswordChangeRequiredError,
    UnavailableError,
)
"""The errors of every route for a student who is logged in."""
WORKER: tuple[type[ApiError], ...] = (NotAWorkerError, UnavailableError)
"""The errors of every route for workers."""
