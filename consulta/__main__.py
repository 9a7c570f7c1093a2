"""``python -m consulta``."""

from consulta.cli import app

app(prog_name="consulta")
