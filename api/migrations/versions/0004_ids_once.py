"""Ids of accounts are given once, also on SQLite, which gave the last one's again."""

from typing import Any

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Have SQLite keep the highest id that it has given; MySQL does so anyway."""
    _rebuild(sqlite_autoincrement=True)


def downgrade() -> None:
    """Let SQLite go on after the highest id that is there."""
    _rebuild()


def _rebuild(**options: Any) -> None:
    # SQLite cannot alter this of a table: the rows are copied into a new one, in the transaction
    # of all migrations. No other table refers to this one.
    if op.get_context().dialect.name == "sqlite":
        with op.batch_alter_table("users", recreate="always", table_kwargs=options):
            pass
