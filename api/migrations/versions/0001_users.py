"""Users and workers' tokens."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None


def _exact(length: int) -> sa.String:
    exact = mysql.VARCHAR(length, collation="utf8mb4_bin")
    return sa.String(length).with_variant(exact, "mysql", "mariadb")


def upgrade() -> None:
    """Create the tables; MySQL keeps those of an attempt that was interrupted."""
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("email", _exact(254), nullable=False),
        sa.Column("email_normal", _exact(254), nullable=False, unique=True),
        sa.Column("username", _exact(50), nullable=False),
        sa.Column("username_normal", _exact(50), nullable=False, unique=True),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("token_version", sa.Integer, nullable=False),
        sa.Column("temporary_hash", sa.String(255)),
        sa.Column("temporary_until", sa.DateTime),
        sa.Column("must_change_password", sa.Boolean, nullable=False),
        sa.Column("is_staff", sa.Boolean, nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "worker_tokens",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", _exact(50), nullable=False, unique=True),
        sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("created", sa.DateTime, nullable=False),
        if_not_exists=True,
    )


def downgrade() -> None:
    """Drop the tables that an interrupted attempt has left."""
    op.drop_table("worker_tokens", if_exists=True)
    op.drop_table("users", if_exists=True)
