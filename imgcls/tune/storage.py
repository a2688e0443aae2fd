"""The database of a study: SQLite in the tune folder, or a server for several machines."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
from filelock import FileLock
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, event, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from imgcls.checkpoints.run_folder import LOCK
from imgcls.errors import ConfigError, RunError, first_line
from imgcls.runtime.signals import postponed

log = logging.getLogger(__name__)

BUSY_TIMEOUT = 60.0  # seconds that SQLite waits for another process
PATIENCE = 5.0  # seconds of waiting until it is said
HEARTBEAT = 30  # seconds between two
_GRACE = 150  # seconds without a heartbeat until a trial is dead
_ATTEMPTS = 5  # to make the tables, which several workers may try at once

_TURNS = Table("imgcls_turns", MetaData(), Column("study_id", Integer, primary_key=True, autoincrement=False))

Result = TypeVar("Result")
Requeue = Callable[[optuna.Study, FrozenTrial], None]


def open_storage(url: str | None, folder: Path, requeue: Requeue) -> RDBStorage:
    """Open or make the database.

    Args:
        url: URL of the database as SQLAlchemy takes it; None for ``study.db`` in the folder.
        folder: The tune folder.
        requeue: Called with a trial whose process is dead.

    Raises:
        ConfigError: If the URL is wrong or a driver is missing.
        RunError: If the database cannot be reached.
    """
    if url is None:
        path = folder / "study.db"
        with FileLock(folder / LOCK):  # two workers that start at once would both make the tables
            _use_write_ahead_log(path)
            storage = _open(f"sqlite:///{path}", {"connect_args": {"timeout": BUSY_TIMEOUT}}, requeue)
        _lock_from_the_start(storage.engine)
        return storage
    try:
        make_url(url)
    except SQLAlchemyError as error:
        raise ConfigError(
            f"optuna.storage: {first_line(error)}; such as postgresql+psycopg://user@host/name"
        ) from error
    return _open(url, {"pool_pre_ping": True}, requeue)


def _use_write_ahead_log(path: Path) -> None:
    """Let workers read while one writes; the file remembers it."""
    try:
        with sqlite3.connect(path, timeout=BUSY_TIMEOUT) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
    except sqlite3.Error as error:
        raise RunError(f"{path}: {error}") from error


def _lock_from_the_start(engine: Engine) -> None:
    """Let each transaction wait for SQLite's lock when it begins.

    One that reads, and then writes while another has written meanwhile, fails at once, whatever the time-out.
    """

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _open(url: str, engine_kwargs: dict[str, Any], requeue: Requeue) -> RDBStorage:
    try:
        return _insist(
            lambda: RDBStorage(
                url,
                engine_kwargs,
                heartbeat_interval=HEARTBEAT,
                grace_period=_GRACE,
                heartbeat_stale_trial_callback=requeue,
            )
        )
    except DBAPIError as error:
        raise RunError(f"optuna.storage: {first_line(error)}") from error
    except (ImportError, SQLAlchemyError) as error:
        raise ConfigError(f"optuna.storage: {first_line(error)}") from error


def _insist(action: Callable[[], Result]) -> Result:
    """Do what fails where another worker does the same at the same moment."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return action()
        except DBAPIError:
            time.sleep(0.5)
    return action()


def turn_of(storage: RDBStorage, study_id: int, folder: Path) -> Callable[[], AbstractContextManager[Any]]:
    """Return what lets one worker at a time through: a lock file beside SQLite, a row's lock in a server."""
    if storage.engine.dialect.name == "sqlite":
        lock = FileLock(folder / LOCK)
        return lambda: lock
    _make_row(storage, study_id)
    row = select(_TURNS).where(_TURNS.c.study_id == study_id).with_for_update()

    @contextmanager
    def turn() -> Iterator[None]:
        with storage.engine.begin() as connection:
            connection.execute(row)
            yield

    return turn


def _make_row(storage: RDBStorage, study_id: int) -> None:
    _insist(lambda: _TURNS.create(storage.engine, checkfirst=True))
    try:
        with storage.engine.begin() as connection:
            connection.execute(insert(_TURNS).values(study_id=study_id))
    except IntegrityError:
        log.debug("another worker has made the row")


@contextmanager
def patiently(folder: Path) -> Iterator[None]:
    """Wait for the database: say after a while that another process keeps it locked, and let no Ctrl-C break it off.

    Broken off within a transaction, a worker would keep the database locked for all.
    """
    timer = threading.Timer(PATIENCE, _say_if_locked, (folder / "study.db",))
    timer.daemon = True
    timer.start()
    try:
        with postponed():
            yield
    finally:
        timer.cancel()


def _say_if_locked(path: Path) -> None:
    if not path.exists():
        return  # a server keeps the study
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        log.warning("%s: locked by another process; waiting up to %.0f s", path, BUSY_TIMEOUT)
    finally:
        connection.close()
