"""Run by Alembic, on the connection that :func:`api.migrations.migrate` hands over."""

from alembic import context

from api.limits import METADATA
from core.users import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=[Base.metadata, METADATA],
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
