"""Password hashes and tokens against hostile input."""

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from jose import jwt
from passlib.hash import argon2

from core import security
from core.security import AccessToken, InvalidTokenError

KEY = "0123456789abcdef0123456789abcdef"
OTHER_KEY = "fedcba9876543210fedcba9876543210"


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token; a change of None leaves one out."""
    now = datetime.now(UTC)
    good = {
        "sub": "7",
        "ver": 3,
        "typ": "access",
        "iss": "consulta",
        "aud": "consulta-api",
        "iat": now,
        "exp": now + timedelta(hours=1),
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(key: str = KEY, algorithm: str = "HS256", **changes: Any) -> str:
    return str(jwt.encode(claims(**changes), key, algorithm=algorithm))


def segment(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value, default=str).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def with_header(header: object, payload: object) -> str:
    """A token with any header and any payload, correctly signed with our key."""
    message = f"{segment(header)}.{segment(payload)}"
    signature = hmac.new(KEY.encode(), message.encode(), hashlib.sha256).digest()
    return f"{message}.{segment(signature)}"


def timestamps(**changes: Any) -> dict[str, Any]:
    """The claims with their times as numbers, for tokens that are put together by hand."""
    return {
        name: int(value.timestamp()) if isinstance(value, datetime) else value
        for name, value in claims(**changes).items()
    }


def test_token_says_whom_it_was_made_for() -> None:
    token = security.create_access_token(7, 3, KEY, timedelta(hours=24))
    assert security.read_access_token(token, KEY) == AccessToken(user_id=7, version=3)


def test_token_put_together_by_hand_is_accepted_only_with_our_algorithm() -> None:
    good = with_header({"alg": "HS256", "typ": "JWT"}, timestamps())
    assert security.read_access_token(good, KEY) == AccessToken(user_id=7, version=3)


@pytest.mark.parametrize("name", ["exp", "iss", "aud", "typ", "ver", "iat", "sub"])
def test_token_without_a_claim_is_refused(name: str) -> None:
    with pytest.raises(InvalidTokenError):
        security.read_access_token(signed(**{name: None}), KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": datetime.now(UTC) - timedelta(seconds=1)},
        {"iss": "somebody-else"},
        {"aud": "another-api"},
        {"typ": "refresh"},
        {"typ": ["access"]},
        {"ver": "3"},
        {"ver": 3.0},
        {"ver": True},
        {"sub": "seven"},
        {"sub": 7},
        {"sub": ""},
        {"sub": "9" * 5_000},
        {"exp": "tomorrow"},
        {"iat": "today"},
        {"nbf": datetime.now(UTC) + timedelta(hours=1)},
    ],
    ids=lambda changes: "-".join(f"{name}={str(value)[:12]}" for name, value in changes.items()),
)
def test_token_with_a_wrong_claim_is_refused_though_it_is_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidTokenError):
        security.read_access_token(signed(**changes), KEY)


def test_token_signed_with_another_key_is_refused() -> None:
    with pytest.raises(InvalidTokenError):
        security.read_access_token(signed(OTHER_KEY), KEY)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_token_of_another_algorithm_is_refused_though_the_key_is_right(algorithm: str) -> None:
    with pytest.raises(InvalidTokenError):
        security.read_access_token(signed(algorithm=algorithm), KEY)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, [], {}, 1, "RS256"])
def test_token_that_names_its_own_algorithm_is_refused(algorithm: object) -> None:
    payload = segment(timestamps())
    unsigned = f"{segment({'alg': algorithm, 'typ': 'JWT'})}.{payload}."
    signed_by_us = with_header({"alg": algorithm, "typ": "JWT"}, timestamps())
    for token in (unsigned, signed_by_us):
        with pytest.raises(InvalidTokenError):
            security.read_access_token(token, KEY)


def test_public_key_is_not_taken_for_our_secret() -> None:
    """Key confusion: RS256 with the sender's own key, and HS256 with a public key as the secret."""
    private = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    asymmetric = str(
        jwt.encode(
            claims(),
            pem,
            algorithm="RS256",
            headers={"jwk": {"kty": "oct", "k": segment(KEY.encode())}, "kid": "../../dev/null"},
        )
    )
    message = f"{segment({'alg': 'HS256', 'typ': 'JWT'})}.{segment(timestamps())}"
    confused = hmac.new(public, message.encode(), hashlib.sha256).digest()
    for token in (asymmetric, f"{message}.{segment(confused)}"):
        with pytest.raises(InvalidTokenError):
            security.read_access_token(token, KEY)


def test_changed_payload_is_refused() -> None:
    header, _, signature = signed().split(".")
    with pytest.raises(InvalidTokenError):
        security.read_access_token(f"{header}.{segment(timestamps(sub='1'))}.{signature}", KEY)


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "Bearer x",
        "\x00",
        "\ud800.\ud800.\ud800",
        "é.é.é",
        with_header([], {}),
        with_header({"alg": "HS256"}, []),
        with_header({"alg": "HS256"}, "text"),
        with_header({"alg": "HS256"}, b"\xff\xfe"),
        with_header(b"\xff", {}),
        with_header(b"[" * 50_000, {}),
        with_header({"alg": "HS256"}, b"[" * 50_000),
        with_header({"alg": "HS256"}, b'{"exp": 1e999}'),
        "a" * 1_000_000,
        ".".join(["a" * 1_000_000] * 3),
    ],
    ids=lambda token: repr(token[:20]),
)
def test_garbage_is_refused_as_an_invalid_token(token: str) -> None:
    with pytest.raises(InvalidTokenError):
        security.read_access_token(token, KEY)


@given(token=st.text(alphabet=st.characters(), max_size=200))
def test_any_text_is_refused_as_an_invalid_token(token: str) -> None:
    with pytest.raises(InvalidTokenError):
        security.read_access_token(token, KEY)


def test_reason_of_a_refusal_does_not_hold_the_key() -> None:
    with pytest.raises(InvalidTokenError) as refused:
        security.read_access_token(signed(OTHER_KEY), KEY)
    assert KEY not in str(refused.value)


def test_password_hash_is_argon2id_with_19_mib() -> None:
    assert security.hash_password("tres gatos").startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_the_same_password_has_another_hash_each_time() -> None:
    assert security.hash_password("tres gatos") != security.hash_password("tres gatos")


@pytest.mark.parametrize(
    "password",
    ["tres gatos", "ñandú", "a\x00b", "\ud800 half a character", "🐈" * 32, "x" * 128, " ", ""],
    ids=ascii,
)
def test_every_password_opens_its_own_hash_and_no_other(password: str) -> None:
    password_hash = security.hash_password(password)
    assert security.verify_password(password, password_hash)
    assert not security.verify_password(password + "x", password_hash)


def test_password_is_not_cut_at_a_nul_nor_at_72_bytes() -> None:
    assert not security.verify_password("a\x00c", security.hash_password("a\x00b"))
    assert not security.verify_password("x" * 80 + "1", security.hash_password("x" * 80 + "2"))


def test_accent_is_the_same_however_the_keyboard_writes_it() -> None:
    assert security.verify_password("n\u0303andu\u0301", security.hash_password("ñandú"))


def test_password_beyond_any_limit_is_wrong_and_cannot_be_chosen() -> None:
    assert not security.verify_password("x" * 1_000_000, security.hash_password("x"))
    with pytest.raises(ValueError, match="maximum"):
        security.hash_password("x" * 1_000_000)


@settings(max_examples=15, deadline=None)
@given(password=st.text(alphabet=st.characters(), max_size=300))
def test_nothing_opens_an_account_that_is_not_there(password: str) -> None:
    assert not security.verify_password(password, None)


def test_hash_with_other_parameters_is_outdated_and_still_opens() -> None:
    outdated = argon2.using(type="ID", memory_cost=8_192, time_cost=1, parallelism=1).hash("gato")
    assert security.needs_rehash(outdated)
    assert security.verify_password("gato", outdated)
    assert not security.needs_rehash(security.hash_password("gato"))


def test_temporary_passwords_can_be_read_and_typed() -> None:
    passwords = {security.temporary_password() for _ in range(500)}
    assert len(passwords) == 500
    assert all(re.fullmatch(r"[a-zA-Z2-9]{14}", password) for password in passwords)
    assert not set("".join(passwords)) & set("0O1lI")
    # Every readable letter and digit turns up in 7,000 of them.
    assert len(set("".join(passwords))) == 56


def test_worker_tokens_are_long_and_only_their_hash_is_comparable() -> None:
    token = security.create_worker_token()
    assert token.startswith("cwt_")
    assert len(token) >= 47
    assert security.hash_worker_token(token) == security.hash_worker_token(token)
    assert security.hash_worker_token(token) != security.hash_worker_token(token + " ")
    assert re.fullmatch(r"[0-9a-f]{64}", security.hash_worker_token("\ud800"))
