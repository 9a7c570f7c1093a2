"""Domains of e-mail addresses, which have two spellings where they are not ASCII (RFC 5890)."""

import contextlib
from collections.abc import Sequence

import idna


def ascii_domain(domain: str) -> str:
    """The domain as it stands in the DNS, in lower case."""
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except UnicodeError:
        # As it is: a name with an underscore, say, which stands in no public DNS.
        return domain.casefold()


def is_within(email: str, domains: Sequence[str]) -> bool:
    """Whether the address is of one of the domains, or of one below them."""
    domain = ascii_domain(email.rpartition("@")[2])
    return any(f".{domain}".endswith(f".{ascii_domain(allowed)}") for allowed in domains)


def spellings(email: str) -> list[str]:
    """The address as it is, then with its domain in the alphabets it can be written in."""
    local, at, domain = email.rpartition("@")
    domains = [domain, ascii_domain(domain)]
    with contextlib.suppress(UnicodeError):
        domains.append(idna.decode(domains[1]))
    return list(dict.fromkeys(f"{local}{at}{spelling}" for spelling in domains))
