"""When a user's address was confirmed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; MySQL keeps that of an attempt that was interrupted."""
    if not op.get_context().as_sql:
        present = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("users")}
        if "confirmed" in present:
            return
    op.add_column("users", sa.Column("confirmed", sa.DateTime))


def downgrade() -> None:
    """Drop the column."""
    with op.batch_alter_table("users") as table:
        table.drop_column("confirmed")
