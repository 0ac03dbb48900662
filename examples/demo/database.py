"""Where the example with a database keeps its rows: a file of SQLite, or a table of its own on a PostgreSQL.

Threads: each pipeline opens a `Rows` of its own, and uses it on its own thread.
"""

from __future__ import annotations

import importlib
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class DatabaseError(Exception):
    """The database can't be used; the message says why in one line."""


class Rows:
    """A connection to the table, by Python's common interface to databases.

    :param mark: how this database's driver marks a value in a statement.
    """

    def __init__(self, connection: Any, table: str, mark: str) -> None:
        self._connection = connection
        self._insert = f"INSERT INTO {table} VALUES ({mark}) ON CONFLICT DO NOTHING"
        self._select = f"SELECT 1 FROM {table} WHERE id = {mark}"

    def store(self, ids: Iterable[str]) -> None:
        """All of them in one transaction. The rows are there when it returns."""
        cursor = self._connection.cursor()
        cursor.executemany(self._insert, [(each,) for each in ids])
        self._connection.commit()

    def has(self, id: str) -> bool:
        """Whether the row is there now."""
        cursor = self._connection.cursor()
        cursor.execute(self._select, (id,))
        is_there = cursor.fetchone() is not None
        self._connection.commit()  # the next look-up sees what was stored meanwhile
        return is_there

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True)
class Database:
    """Where the rows are."""

    name: str
    connect: Callable[[], Rows]


@contextmanager
def sqlite() -> Iterator[Database]:
    """A file that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="arroyo-sync-") as folder:
        file = Path(folder, "events.sqlite")
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE events (id TEXT PRIMARY KEY)")
        connection.close()
        # A pipeline is made on one thread and run on another.
        yield Database("SQLite", lambda: Rows(sqlite3.connect(file, check_same_thread=False), "events", "?"))


@contextmanager
def postgresql(address: str) -> Iterator[Database]:
    """A table of its own, which is dropped at the end.

    :param address: as libpq reads it, such as ``postgresql://user:password@host/database``.
    :raises DatabaseError: no connection, or no driver.
    """
    try:
        psycopg: Any = importlib.import_module("psycopg")
    except ImportError as error:
        raise DatabaseError("PostgreSQL needs its driver: pip install '.[postgresql]'") from error
    table = f"arroyo_sync_demo_{uuid.uuid4().hex[:8]}"
    try:
        with psycopg.connect(address) as connection:
            connection.execute(f"CREATE TABLE {table} (id TEXT PRIMARY KEY)")
    except psycopg.Error as error:
        raise DatabaseError(f"--postgresql: {str(error).splitlines()[0]}") from error
    try:
        yield Database("PostgreSQL", lambda: Rows(psycopg.connect(address), table, "%s"))
    finally:
        with psycopg.connect(address) as connection:
            connection.execute(f"DROP TABLE {table}")
