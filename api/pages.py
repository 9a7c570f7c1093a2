"""Small pages that links in e-mails lead to: our own HTML, no script, nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from api import languages
from api.errors import EXPECTED, ApiError, api_error
from core.colors import Palette
from core.settings import Settings

_PAGE = Template(Path(__file__).with_name("page.html").read_text("utf-8"))
_STYLE = Template(Path(__file__).with_name("page.css").read_text("utf-8"))
_POLICY = (
    "default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Button:
    """A button that sends the form with ``name=value``; a ``chosen`` one stands out."""

    name: str
    value: str
    text: str
    chosen: bool = False


def page(
    settings: Settings,
    language: str,
    title: str,
    sentences: Sequence[str],
    *,
    buttons: Sequence[Button] = (),
    note: str = "",
    status: int = 200,
) -> HTMLResponse:
    """A page with a form of buttons, which is sent to the page's own address."""
    colors = Palette.of(settings.brand_color)
    style = _STYLE.substitute(
        light=colors.light.ground,
        light_ink=colors.light.ink,
        dark=colors.dark.ground,
        dark_ink=colors.dark.ink,
    )
    content = "\n".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    if buttons:
        content += f'\n<form method="post">\n{"".join(map(_button, buttons))}</form>'
    if note:
        content += f'\n<p class="note">{escape(note)}</p>'
    html = _PAGE.substitute(
        language=language,
        title=escape(title),
        course=escape(settings.course_name),
        style=style,
        content=content,
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    headers = {
        "Content-Security-Policy": _POLICY.format(digest=digest),
        "Content-Language": language,
    }
    return HTMLResponse(html, status, headers)


def _button(button: Button) -> str:
    chosen = ' class="chosen" autofocus' if button.chosen else ""
    name, value, text = map(escape, (button.name, button.value, button.text))
    return f'<button name="{name}" value="{value}"{chosen}>{text}</button>\n'


class PageRoute(APIRoute):
    """A route for people in a browser: its errors are pages too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the route."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except EXPECTED as error:
                return _problem(request, api_error(error))

        return handle


def language_of(request: Request, settings: Settings) -> str:
    """The language that the browser prefers, or else the course's."""
    return languages.preferred(request.headers.get("accept-language", ""), settings.course_language)


_PROBLEM = {"es": "Esto no ha funcionado", "en": "This did not work"}


def _problem(request: Request, error: ApiError) -> HTMLResponse:
    settings: Settings = request.app.state.resources.settings
    language = language_of(request, settings)
    detail = error.problem(spanish=language == "es")["detail"]
    response = page(settings, language, _PROBLEM[language], [detail], status=error.status)
    response.headers.update(error.headers or {})
    return response
