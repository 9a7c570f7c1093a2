"""The migrations make the tables that the code expects, once, however many processes start."""

import io
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, inspect

from api.limits import METADATA
from api.migrations import REVISIONS, alembic_config, migrate, revision_of
from core.settings import Settings
from core.users import Base, EmailTakenError, UserRepository, create_user_engine


def _settings(folder: Path) -> Settings:
    return Settings(database_url=f"sqlite:///{folder / 'users.db'}")


def _migrate(folder: Path) -> None:
    engine = create_user_engine(_settings(folder))
    migrate(engine)
    engine.dispose()


def test_tables_agree_with_the_code(tmp_path: Path) -> None:
    _migrate(tmp_path)
    engine = create_engine(f"sqlite:///{tmp_path / 'users.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, [Base.metadata, METADATA]) == []
    engine.dispose()


def test_users_stay_when_it_is_migrated_again(tmp_path: Path) -> None:
    _migrate(tmp_path)
    engine = create_user_engine(_settings(tmp_path))
    UserRepository(engine).register(email="a@uni.test", username="ana", password="tres gatos")
    migrate(engine)
    assert UserRepository(engine).find("ana") is not None
    engine.dispose()


def test_processes_that_start_at_once_do_not_collide(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_migrate, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 3


def test_interrupted_migration_leaves_nothing_half_done(tmp_path: Path) -> None:
    engine = create_user_engine(_settings(tmp_path))
    _interrupt_migration(engine, at="CREATE TABLE IF NOT EXISTS worker_tokens")
    assert inspect(engine).get_table_names() == []
    migrate(engine)
    assert set(inspect(engine).get_table_names()) >= {"users", "worker_tokens"}
    engine.dispose()


def _interrupt_migration(engine: Engine, *, at: str) -> None:
    """Begin to migrate, and stop before the first statement with this text."""

    def interrupt(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if at in statement:
            raise InterruptedError

    event.listen(engine, "before_cursor_execute", interrupt)
    try:
        with pytest.raises(InterruptedError):
            migrate(engine)
    finally:
        event.remove(engine, "before_cursor_execute", interrupt)


def test_accounts_and_rules_stay_when_the_table_is_rebuilt(tmp_path: Path) -> None:
    engine = create_user_engine(_settings(tmp_path))
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
    users = UserRepository(engine)
    for name in ("ana", "eva", "leo"):
        users.register(email=f"{name}@uni.test", username=name, password="tres gatos")
    users.delete(1)
    users.confirm(2, "eva@uni.test")
    select_all = "SELECT * FROM users ORDER BY id"
    with engine.connect() as connection:
        before = connection.exec_driver_sql(select_all).mappings().all()
    _interrupt_migration(engine, at="RENAME TO")
    for _ in range(2):
        with engine.connect() as connection:
            assert connection.exec_driver_sql(select_all).mappings().all() == before
        migrate(engine)
    with pytest.raises(EmailTakenError):
        users.register(email="eva@uni.test", username="eva2", password="tres gatos")
    users.delete(3)
    assert users.register(email="i@uni.test", username="i", password="tres gatos").id == 4
    engine.dispose()


def test_revisions_are_known_without_alembic(tmp_path: Path) -> None:
    history = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    assert tuple(script.revision for script in history) == REVISIONS[::-1]
    engine = create_user_engine(_settings(tmp_path))
    assert revision_of(engine) is None
    migrate(engine)
    assert revision_of(engine) == REVISIONS[-1]
    engine.dispose()
    program = (
        "import sys, api.main, sqlalchemy\n"
        "api.main.migrate(sqlalchemy.create_engine(sys.argv[1]))\n"
        "assert 'alembic' not in sys.modules"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", program, str(engine.url)]
    subprocess.run(words, env=environment, check=True, timeout=60)


def test_mysql_compares_names_exactly() -> None:
    sql = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="mysql", opts={"as_sql": True, "output_buffer": sql}
    )
    with Operations.context(context):
        for revision in ScriptDirectory.from_config(alembic_config()).walk_revisions():
            revision.module.upgrade()
    created = sql.getvalue()
    for column in ("email_normal VARCHAR(254)", "username_normal VARCHAR(50)"):
        assert f"{column} COLLATE utf8mb4_bin" in created
    assert "UNIQUE (email_normal)" in created
    assert "_alembic_tmp" not in created, "only SQLite's table is rebuilt"
