"""Where a study lies, and one lock around everything that two processes must not do at once.

Optuna's SQLite storage lets two workers take the same waiting trial (SQLite has no row locks), and
several processes that open a new database crash each other. So creating, taking, reaping and
finishing happen under one lock: a file beside a SQLite database, an advisory lock in PostgreSQL.
"""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

_SQLITE = "sqlite:///"
WAIT_SECONDS = 60
"""How long a call waits for another process that writes into a SQLite file."""


class StorageError(ValueError):
    """The place of a study that cannot be used."""


def complete(url: str, folder: Path) -> str:
    """An address that does not depend on the current directory.

    Args:
        url: as the file names it; empty for `search.db` in `folder`.
        folder: the search's.
    """
    if not url:
        return f"{_SQLITE}{folder.absolute() / 'search.db'}"
    if url.startswith(_SQLITE):
        return f"{_SQLITE}{Path(url.removeprefix(_SQLITE)).absolute()}"
    return url


@contextmanager
def alone(url: str) -> Iterator[None]:
    """One process at a time, for this storage; released when the process dies."""
    if url.startswith(_SQLITE):
        path = Path(url.removeprefix(_SQLITE))
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            yield
        return
    import sqlalchemy

    number = int.from_bytes(hashlib.sha256(b"lit-eve search").digest()[:7], "big")
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:number)"), {"number": number})
        yield  # closing the connection gives the lock back


def connect(url: str) -> RDBStorage:
    """The storage; its tables are made if they are not there. Call it under `alone`.

    Raises:
        StorageError: if it cannot be reached.
    """
    quiet()
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    arguments = {"timeout": WAIT_SECONDS} if url.startswith(_SQLITE) else {}
    try:
        return RDBStorage(url, engine_kwargs={"connect_args": arguments, "pool_pre_ping": True})
    except (SQLAlchemyError, ImportError) as error:
        raise StorageError(unreachable(url, error)) from error


def unreachable(url: str, error: Exception) -> str:
    """What to say when a storage does not answer."""
    from lit_eve.tracking.redact import redact, redact_urls

    extra = " Install lit-eve[postgresql]." if isinstance(error, ImportError) else ""
    return (
        f"the storage {redact_urls(url)} cannot be used: {redact(str(error)).splitlines()[0]}. "
        f"Trials are handed out there, so nothing can start.{extra} Check the address and that the "
        "server runs."
    )


def quiet() -> None:
    """Optuna says what matters through its results."""
    import optuna

    optuna.logging.set_verbosity(logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    os.environ.setdefault("MPLBACKEND", "agg")
