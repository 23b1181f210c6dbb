"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel import SQLModel

from hourbook.database import register_tables
from hourbook.migrations.triggers import APPEND_ONLY, postgresql_triggers, sqlite_triggers
from invoices import store as invoices

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table that the stores declare, and the triggers that keep facts unchanged."""
    # Before the first release this follows the stores; it is frozen into explicit statements with that release.
    register_tables()
    connection = op.get_bind()
    SQLModel.metadata.create_all(connection)
    present = sa.inspect(connection).get_table_names()
    for table, keys in APPEND_ONLY.items():
        if table in present:
            sqlite = connection.dialect.name == "sqlite"
            for statement in sqlite_triggers(table, keys) if sqlite else postgresql_triggers(table):
                op.execute(statement)
    for statement in invoices.TRIGGERS[connection.dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    """Refuse: going back would lose facts."""
    raise NotImplementedError("a schema never goes back: it would lose facts; restore a backup instead")
