"""Which passwords are refused: those that are tried first. What they are made of is no matter."""

from zxcvbn.frequency_lists import FREQUENCY_LISTS

from core.users import normal_form

_MOST_COMMON = frozenset(FREQUENCY_LISTS["passwords"])
# The list is of English-speaking sites; these are first here.
_SPANISH = """
contraseña contrasena micontraseña clave miclave secreto administrador profesor profesora estudiante
alumno alumna universidad facultad examen consulta tequiero tequieromucho teamo teamomucho amorcito
mivida miamor españa madrid realmadrid barcelona sevilla valencia atletico bienvenido bienvenida
hola holahola holamundo qwertyuiopñ asdfghjklñ felicidad estrella alejandro alejandra fernando
fernanda cristina
"""
_COMMON_HERE = frozenset(_SPANISH.split())
_TRAILING = "0123456789!.?*#$-_"
_MOST_TRAILING = 5
"""A year and a sign at the end of a word: tried right after the word itself."""
_MOST_DIGITS = 4
_SHORTEST_PART = 3


def is_common(password: str) -> bool:
    """Whether it is among the 30,000 most common, whatever its capitals and its last digits."""
    text = normal_form(password)
    word = text.rstrip(_TRAILING)
    if len(text) - len(word) > _MOST_TRAILING:
        word = text
    return any(known in _MOST_COMMON or known in _COMMON_HERE for known in (text, word))


def is_own_name(password: str, *names: str) -> bool:
    """Whether it is made of the names (user name, e-mail address) and four digits at most."""
    text = _letters_and_digits(password)
    rest = text
    for part in sorted(_parts(names), key=len, reverse=True):
        rest = rest.replace(part, "")
    return rest != text and (not rest or (rest.isdecimal() and len(rest) <= _MOST_DIGITS))


def _parts(names: tuple[str, ...]) -> set[str]:
    separated = (
        "".join(character if character.isalnum() else " " for character in normal_form(name))
        for name in names
    )
    parts = {part for name in separated for part in name.split() if len(part) >= _SHORTEST_PART}
    return parts | {_letters_and_digits(name) for name in names}


def _letters_and_digits(text: str) -> str:
    return "".join(filter(str.isalnum, normal_form(text)))
