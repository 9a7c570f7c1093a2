"""Passwords that are tried first are refused; nothing else is asked of them."""

import pytest

from api.passwords import is_common, is_own_name


@pytest.mark.parametrize(
    "password",
    [
        "12345678",
        "password",
        "PassWord",
        "password2024",
        "Password1!",
        "qwertyuiop",
        "1qaz2wsx",
        "p@ssw0rd",
        "contraseña",
        "contrasen\u0303a",
        "Contraseña2026!",
        "universidad",
        "tequiero1",
        "ｐａｓｓｗｏｒｄ",
    ],
)
def test_common_password_is_known(password: str) -> None:
    assert is_common(password)


@pytest.mark.parametrize(
    "password",
    [
        "tres gatos en el tejado",
        "password of my grandmother",
        "gtpwkzqm",
        "password12345678",
        "xkcd936xkcd",
        "ññññññññ",
        "x" * 128,
    ],
)
def test_other_passwords_are_taken_whatever_they_are_made_of(password: str) -> None:
    assert not is_common(password)


NAMES = ("ana.garcia", "ana.garcia-lopez@alumnos.uni.test")


@pytest.mark.parametrize(
    "password",
    [
        "ana.garcia",
        "ANA.GARCIA",
        "ana.garcia-lopez@alumnos.uni.test",
        "ana.garcia-lopez",
        "anagarcia",
        "Garcia.Ana",
        "garcialopez",
        "AnaGarcia2026!",
        "ana_lopez_99",
        "alumnos.uni",
        "garcia garcia",
    ],
)
def test_password_made_of_the_own_name_is_known(password: str) -> None:
    assert is_own_name(password, *NAMES)


@pytest.mark.parametrize(
    "password",
    ["garcia come tres peras", "anagarcia20262027", "20262027", "gatos y tejados", "¡¿!?-_ €"],
)
def test_password_with_something_of_its_own_is_taken(password: str) -> None:
    assert not is_own_name(password, *NAMES)


def test_a_number_for_a_name_is_no_password() -> None:
    assert is_own_name("100451234", "alu.100451234", "100451234@alumnos.uni.test")
    assert is_own_name("100451234-7", "100451234", "ana@uni.test")
    assert not is_own_name("100451235", "100451234", "ana@uni.test")


def test_names_made_to_be_slow_are_not() -> None:
    assert not is_own_name("a" * 127 + "b", ".".join(["aaa"] * 12), "aaa.aaaa@aaa.aaaa")
