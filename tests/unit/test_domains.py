"""Addresses at domains with letters beyond ASCII are the same in both spellings."""

import pytest

from core.domains import ascii_domain, is_within, spellings


@pytest.mark.parametrize(
    ("email", "allowed"),
    [
        ("ana@uni.es", True),
        ("Ana@UNI.ES", True),
        ("ana@alumnos.uni.es", True),
        ("ana@xn--ao-zja.es", True),
        ("ana@AÑO.es", True),
        ("ana@otra.es", False),
        ("ana@notuni.es", False),
        ("ana@uni.es.evil.example", False),
        ("uni.es@evil.example", False),
        ("ana@es", False),
    ],
)
def test_domains_are_compared_by_their_labels(email: str, allowed: bool) -> None:
    assert is_within(email, ["uni.es", "año.es"]) is allowed


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("UNI.es", "uni.es"),
        ("AÑO.es", "xn--ao-zja.es"),
        # Not "strasse": that is another domain.
        ("straße.example", "xn--strae-oqa.example"),
        ("_dmarc.Uni.es", "_dmarc.uni.es"),
        ("uni..es", "uni..es"),
        ("a\ud800.es", "a\ud800.es"),
        ("", ""),
    ],
)
def test_domains_are_known_by_their_name_in_the_dns(domain: str, expected: str) -> None:
    assert ascii_domain(domain) == expected


@pytest.mark.parametrize("email", ["ana@año.es", "ana@xn--ao-zja.es"])
def test_both_spellings_of_an_address_are_known_the_given_one_first(email: str) -> None:
    found = spellings(email)
    assert found[0] == email
    assert {"ana@año.es", "ana@xn--ao-zja.es"} == set(found)


@pytest.mark.parametrize("email", ["Ana@uni.es", "ana", "", "ana@uni..es"])
def test_what_has_one_spelling_is_left_as_it_is(email: str) -> None:
    assert spellings(email) == [email]
