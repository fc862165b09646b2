"""Where datasets lie that are not on a disk of this machine: object stores and the like, by URL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

LITDATA = ("s3", "gs", "r2")
"""Schemes for which LitData brings a client of its own; all others are fsspec's."""
_URL = re.compile(r"^([a-z][a-z0-9+.-]*)://.")


class Store(Protocol):
    """Files below one address."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""

    def get(self, name: str, to: Path) -> None:
        """Copy a file here."""

    def put(self, file: Path, name: str) -> None:
        """Copy a file there; whoever reads it meanwhile sees the old one or the new one whole."""


def is_remote(address: str) -> bool:
    """Whether an address is a URL, `file://` included."""
    return _URL.match(address) is not None


def open_store(address: str) -> Store:
    """The store at a URL.

    Raises:
        ValueError: if nothing installed here reaches it.
    """
    match = _URL.match(address)
    if match is None:
        raise ValueError(f"{address} is no URL such as s3://bucket/folder.")
    address = address.rstrip("/")
    if match[1] in LITDATA:
        return _LitDataStore(address)
    return _FsspecStore(address)


class _LitDataStore:
    """Through LitData's own clients, which know of the credentials of clouds."""

    def __init__(self, address: str) -> None:
        from litdata.streaming.fs_provider import (  # type: ignore[import-untyped]
            _get_fs_provider,
        )

        self.address = address
        try:
            self._provider: Any = _get_fs_provider(f"{address}/")
        except ModuleNotFoundError as error:
            raise ValueError(f"{address} cannot be reached: {error}. Install that.") from error

    def exists(self, name: str) -> bool:
        with _named(self.address, name):
            return bool(self._provider.exists(f"{self.address}/{name}"))

    def get(self, name: str, to: Path) -> None:
        with _named(self.address, name):
            self._provider.download_file(f"{self.address}/{name}", str(to))

    def put(self, file: Path, name: str) -> None:
        with _named(self.address, name):
            self._provider.upload_file(str(file), f"{self.address}/{name}")


class _FsspecStore:
    """Through fsspec, whose drivers are packages of their own."""

    def __init__(self, address: str) -> None:
        import fsspec  # type: ignore[import-untyped]

        self.address = address
        try:
            self._files, self._root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise ValueError(
                f"{address} cannot be reached: {error}. fsspec needs a package for such addresses; "
                f"without any there are {', '.join(f'{scheme}://' for scheme in LITDATA)}."
            ) from error

    def exists(self, name: str) -> bool:
        return bool(self._files.exists(f"{self._root}/{name}"))

    def get(self, name: str, to: Path) -> None:
        with _named(self.address, name):
            self._files.get_file(f"{self._root}/{name}", str(to))

    def put(self, file: Path, name: str) -> None:
        with _named(self.address, name):
            self._files.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(file), f"{self._root}/{name}")


@contextmanager
def _named(address: str, name: str) -> Iterator[None]:
    """Say which file of which store failed: clients raise what they like."""
    try:
        yield
    except Exception as error:
        raise OSError(f"{address}/{name}: {type(error).__name__}: {error}") from error
