"""Password hashes and tokens."""

import hashlib
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jose import JWTError, jwt
from passlib.context import CryptContext
from passlib.exc import PasswordSizeError

ALGORITHM = "HS256"
ISSUER = "consulta"
AUDIENCE = "consulta-api"
TOKEN_TYPE = "access"  # nosec B105  # a type of token
WORKER_TOKEN_PREFIX = "cwt_"  # nosec B105  # how a token begins

# argon2id with the memory that OWASP gives as the least (19 MiB): 20 ms on a small server.
_PASSWORDS = CryptContext(
    schemes=["argon2"],
    argon2__type="ID",
    argon2__memory_cost=19_456,
    argon2__time_cost=2,
    argon2__parallelism=1,
)

# Without the characters that people mix up when they copy from an e-mail: 0 O, 1 l I.
_READABLE = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_TEMPORARY_LENGTH = 14


class InvalidTokenError(Exception):
    """The token is forged, expired or not one of ours."""


def hash_password(password: str) -> str:
    """An argon2id hash; takes about 20 ms and 19 MiB.

    Raises:
        ValueError: the password is longer than 4,096 bytes.
    """
    return str(_PASSWORDS.hash(_bytes(password)))


def verify_password(password: str, password_hash: str | None) -> bool:
    """Whether the password fits. With no hash it takes the same time and is False."""
    try:
        fits = bool(_PASSWORDS.verify(_bytes(password), password_hash or _DUMMY_HASH))
    except PasswordSizeError:
        return False
    return fits and password_hash is not None


def _bytes(password: str) -> bytes:
    # Keyboards differ in how they write an accent, and hostile text may hold half a character.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return bool(_PASSWORDS.needs_update(password_hash))


_DUMMY_HASH = hash_password(secrets.token_urlsafe())


def temporary_password() -> str:
    """A password that can be read from an e-mail and typed; 81 bits."""
    return "".join(secrets.choice(_READABLE) for _ in range(_TEMPORARY_LENGTH))


def may_be_temporary(password: str) -> bool:
    """Whether it has the form of a temporary password."""
    return len(password) == _TEMPORARY_LENGTH and set(password) <= set(_READABLE)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a student's token says."""

    user_id: int
    version: int


def create_access_token(user_id: int, version: int, secret_key: str, lifetime: timedelta) -> str:
    """A signed token for the user; it ends with ``lifetime`` or when ``version`` is raised."""
    now = datetime.now(UTC)
    claims = {
        "sub": str(user_id),
        "ver": version,
        "typ": TOKEN_TYPE,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + lifetime,
    }
    return str(jwt.encode(claims, secret_key, algorithm=ALGORITHM))


def read_access_token(token: str, secret_key: str) -> AccessToken:
    """Check signature, expiry, issuer, audience and type.

    Raises:
        InvalidTokenError: any of them is wrong or missing.
    """
    try:
        claims = jwt.decode(
            token,
            secret_key,
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            audience=AUDIENCE,
            options={
                "require_exp": True,
                "require_iat": True,
                "require_iss": True,
                "require_aud": True,
                "require_sub": True,
            },
        )
        if claims.get("typ") != TOKEN_TYPE:
            raise InvalidTokenError("not an access token")
        version = claims["ver"]
        if type(version) is not int:
            raise InvalidTokenError("the version is not a number")
        return AccessToken(user_id=int(claims["sub"]), version=version)
    except (JWTError, KeyError, ValueError, TypeError, RecursionError) as error:
        # The header is read before the signature is checked: it may hold anything, deep JSON too.
        raise InvalidTokenError(str(error)) from None


def create_worker_token() -> str:
    """A random token for a worker; 256 bits."""
    return WORKER_TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_worker_token(token: str) -> str:
    """What is stored of a worker's token. Random enough that a plain hash is safe."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
