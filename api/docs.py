"""The page that students ask on: Swagger UI from a package, without any foreign asset."""

import base64
import hashlib
import html
import json
from pathlib import Path
from string import Template
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from api.errors import FieldProblem, Problem

ASSETS = Path(fastapi_offline.__file__).with_name("static")
PAGE = Template(Path(__file__).with_name("docs.html").read_text(encoding="utf-8"))

DESCRIPTION = """\
Haz una pregunta sobre **{course}** y la respuesta te llegará por correo, con las páginas de los
documentos del curso en las que se apoya. No hace falta esperar aquí.

1. **Regístrate**: abre `POST /user`, pon tu correo, un nombre de usuario y una contraseña, y pulsa
   *Execute*. Te llegará un correo con un enlace: ábrelo para confirmar tu dirección.
2. **Identifícate**: pulsa *Authorize*, escribe tu usuario (o correo) y tu contraseña, y otra vez
   *Authorize*.
3. **Pregunta**: abre `POST /questions` («Input Prompt»), escribe tu pregunta entre las comillas y
   pulsa *Execute*. El código 202 significa que está guardada. Puedes hacer {hourly} preguntas por
   hora y tener {waiting} sin respuesta; el código 429 dice cuándo puedes seguir.

---

Ask a question about **{course}**; the answer arrives by e-mail, with the pages of the course's
documents that it rests on. There is no need to wait here.

1. **Register**: open `POST /user`, fill in your e-mail address, a user name and a password, and
   press *Execute*. An e-mail with a link arrives: open it to confirm your address.
2. **Authorise**: press *Authorize*, type your user name (or e-mail address) and your password, and
   press *Authorize* again.
3. **Ask**: open `POST /questions` ("Input Prompt"), type your question between the quotation marks
   and press *Execute*. The code 202 means that it is stored. You may ask {hourly} questions an
   hour and have {waiting} without an answer; the code 429 says when you may go on.
"""

TAGS = [
    {"name": "Accounts", "description": "Tu cuenta · your account"},
    {"name": "Questions", "description": "Tus preguntas · your questions"},
    {"name": "Status", "description": "El servicio · the service"},
    {
        "name": "Workers",
        "description": "Para programas que responden · for programs that answer, not for students",
    },
]

_SWAGGER = {
    "dom_id": "#swagger-ui",
    "deepLinking": True,
    "persistAuthorization": True,
    "tryItOutEnabled": True,
    "defaultModelsExpandDepth": -1,
    "displayRequestDuration": True,
    # Without this, Swagger UI may send the page's address to a validator on the internet.
    "validatorUrl": None,
}


def add_docs(app: FastAPI) -> None:
    """Serve ``/docs`` with its assets, and describe the problems in ``/openapi.json``."""
    script = f"SwaggerUIBundle({json.dumps({'url': app.openapi_url, **_SWAGGER})});"
    page = PAGE.substitute(title=html.escape(app.title), script=script)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    app.mount("/assets", StaticFiles(directory=ASSETS), name="assets")

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schema(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        tags=app.openapi_tags,
        routes=app.routes,
    )
    models = schema["components"]["schemas"]
    for model in (Problem, FieldProblem):
        described = model.model_json_schema(ref_template="#/components/schemas/{model}")
        described.pop("$defs", None)
        models[model.__name__] = described
    return schema
