"""The database of a study: SQLite in the tune folder, or a server for several machines."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import Connection, Engine, column, event, select, table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from imgcls.checkpoints.run_folder import LOCK
from imgcls.errors import ConfigError, RunError, first_line
from imgcls.runtime.signals import postponed

log = logging.getLogger(__name__)

BUSY_TIMEOUT = 60.0  # seconds that SQLite waits for another process
PATIENCE = 5.0  # seconds of waiting before a warning
HEARTBEAT = 30  # seconds between two heartbeats
_GRACE = 150  # seconds without a heartbeat after which a trial is dead
_ATTEMPTS = 5
_LOCK_ATTRIBUTE = "lock"  # user attribute of the study, whose row a worker locks

Requeue = Callable[[optuna.Study, FrozenTrial], None]


def open_storage(url: str | None, folder: Path, requeue: Requeue) -> RDBStorage:
    """Open or create the database: of an SQLAlchemy URL, else ``study.db`` in the tune folder.

    ``requeue`` is called with each trial whose heartbeat stopped.

    Raises:
        ConfigError: If the URL is invalid or a driver is missing.
        RunError: If the database cannot be reached.
    """
    if url is None:
        path = folder / "study.db"
        with FileLock(folder / LOCK):  # else two workers that start together both create the tables
            _use_write_ahead_log(path)
            storage = _open(f"sqlite:///{path}", {"connect_args": {"timeout": BUSY_TIMEOUT}}, requeue)
        _begin_immediate(storage.engine)
        return storage
    try:
        make_url(url)
    except SQLAlchemyError as error:
        raise ConfigError(
            f"optuna.storage: {first_line(error)}; for example postgresql+psycopg://user@host/name"
        ) from error
    return _open(url, {"pool_pre_ping": True}, requeue)


def _use_write_ahead_log(path: Path) -> None:
    """Let workers read while another one writes; the setting is stored in the file."""
    try:
        with sqlite3.connect(path, timeout=BUSY_TIMEOUT) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
    except sqlite3.Error as error:
        raise RunError(f"{path}: {error}") from error


def _begin_immediate(engine: Engine) -> None:
    """Make each transaction wait for SQLite's write lock at its start.

    SQLite's busy timeout does not apply to a transaction that reads first and writes after another one has written:
    it fails at once (https://www.sqlite.org/isolation.html).
    """

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _open(url: str, engine_kwargs: dict[str, Any], requeue: Requeue) -> RDBStorage:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return RDBStorage(
                url,
                engine_kwargs,
                heartbeat_interval=HEARTBEAT,
                grace_period=_GRACE,
                heartbeat_stale_trial_callback=requeue,
            )
        except DBAPIError as error:  # another worker may be creating the tables
            if attempt == _ATTEMPTS:
                raise RunError(f"optuna.storage: {first_line(error)}") from error
            time.sleep(0.5)
        except (ImportError, SQLAlchemyError) as error:
            raise ConfigError(f"optuna.storage: {first_line(error)}") from error
    raise AssertionError("unreachable")


def lock_of(storage: RDBStorage, study: optuna.Study, folder: Path) -> Callable[[], AbstractContextManager[Any]]:
    """Return a lock shared by all workers of a study: a lock file beside SQLite, a row lock in a server.

    The row is that of a user attribute of the study, which Optuna itself never locks (``study_user_attributes``).
    """
    if storage.engine.dialect.name == "sqlite":
        lock = FileLock(folder / LOCK)
        return lambda: lock
    if _LOCK_ATTRIBUTE not in study.user_attrs:
        study.set_user_attr(_LOCK_ATTRIBUTE, "locked by the worker that changes the study")
    attributes = table("study_user_attributes", column("study_id"), column("key"))
    study_id = storage.get_study_id_from_name(study.study_name)
    row = select(attributes).where(attributes.c.study_id == study_id, attributes.c.key == _LOCK_ATTRIBUTE)

    @contextmanager
    def row_lock() -> Iterator[None]:
        with storage.engine.begin() as connection:
            connection.execute(row.with_for_update())
            yield

    return row_lock


@contextmanager
def patiently(folder: Path) -> Iterator[None]:
    """Warn if another process keeps the database locked for long, and postpone signals.

    A worker interrupted within a transaction would keep the database locked for all others.
    """
    timer = threading.Timer(PATIENCE, _warn_if_locked, (folder / "study.db",))
    timer.daemon = True
    timer.start()
    try:
        with postponed():
            yield
    finally:
        timer.cancel()


def _warn_if_locked(path: Path) -> None:
    if not path.exists():
        return  # the study is on a server
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        log.warning("%s: locked by another process; waiting up to %.0f s", path, BUSY_TIMEOUT)
    finally:
        connection.close()
