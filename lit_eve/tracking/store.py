"""Which MLflow store, at which absolute place, created once however many processes start at once.

mlflow is imported by `connect` only: it takes seconds.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import warnings
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from lit_eve.tracking.redact import redact_urls

if TYPE_CHECKING:
    from mlflow import MlflowClient

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""No telemetry, no job runner, and requests that give up: waiting and retrying is our own part."""

_SQLITE = "sqlite:///"


class StoreError(ValueError):
    """The address of a tracking store that cannot be used."""


@dataclass(frozen=True)
class Store:
    """An MLflow store.

    `uri` is complete: it does not depend on the current directory. `artifacts` is the folder beside
    a local database that holds the files of its runs; None where a server decides that itself.
    """

    uri: str
    artifacts: Path | None = None

    @property
    def shown(self) -> str:
        """The address without its login."""
        return redact_urls(self.uri)

    @property
    def key(self) -> str:
        """A short name of the store for file names; it does not depend on the login."""
        return hashlib.sha256(self.shown.encode()).hexdigest()[:12]

    @property
    def database(self) -> Path | None:
        """The database file of a sqlite store."""
        if not self.uri.startswith(_SQLITE):
            return None
        return Path(self.uri.removeprefix(_SQLITE))

    @property
    def served(self) -> bool:
        """Whether the address is a running server's."""
        return self.uri.startswith(("http://", "https://"))


def locate(uri: str, base: Path | None = None) -> Store:
    """The store that an experiment file names.

    Args:
        uri: `sqlite:///file.db`, `http(s)://...`, or `postgresql+psycopg2://...`.
        base: what a relative sqlite path starts from, by default the current directory.

    Raises:
        StoreError: if MLflow could not use it.
    """
    base = Path(base or Path.cwd()).resolve()
    if uri.startswith(_SQLITE):
        path = uri.removeprefix(_SQLITE)
        if path in ("", ":memory:"):
            raise StoreError(
                f"{uri} is no file: runs would be gone with the process. Write sqlite:///mlflow.db."
            )
        database = (base / path).resolve()
        return Store(f"{_SQLITE}{database}", database.parent / "mlartifacts")
    if uri.startswith(("http://", "https://")):
        return Store(uri.rstrip("/"))
    if uri.split(":", 1)[0].split("+")[0] in ("postgresql", "mysql", "mssql"):
        return Store(uri, base / "mlartifacts")
    raise StoreError(
        f"{redact_urls(uri)} is no store that MLflow tracks runs in. Write sqlite:///mlflow.db for "
        "a file on this machine, http://host:5000 for a server, or "
        "postgresql+psycopg2://user:password@host/database."
    )


def quiet() -> None:
    """Set MLflow's environment for this process, where the user has not set it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def connect(store: Store) -> MlflowClient:
    """A client of the store; a database that is not there yet is created, by one process.

    Four processes that open the same new database at once crash each other in its migrations, so
    creation happens under a file lock beside it.
    """
    quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

    if store.database is not None and store.artifacts is not None:
        store.database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{store.database}.lock"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not _created(store.database):
                from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

                SqlAlchemyStore(store.uri, store.artifacts.as_uri())  # type: ignore[no-untyped-call]
    return MlflowClient(store.uri)


def _created(database: Path) -> bool:
    """Whether MLflow's tables are there; asking MLflow itself costs a second."""
    if not database.exists():
        return False
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
        return found.fetchone() is not None


def experiment_id(client: MlflowClient, store: Store, name: str) -> str:
    """The id of the experiment of that name, created if there is none.

    An experiment that somebody deleted in the UI comes back: a new run of it has to lie somewhere,
    and MLflow keeps the name taken.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = (store.artifacts / _file_name(name)).as_uri() if store.artifacts else None
        with suppress(MlflowException):  # another process may be first: then it is read below
            return str(client.create_experiment(name, artifact_location=location))
        found = client.get_experiment_by_name(name)
        if found is None:
            return str(client.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
