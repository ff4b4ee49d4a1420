"""Unix-domain sockets, for peers of the same user.

A socket has no TLS. Its file has the mode 0600, in a folder where no other user can replace it, so
that only this user and root can connect.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

PATH_BYTES_MAX = 107
"""The longest path, without its NUL (unix(7))."""


def is_socket(address: str) -> bool:
    """Whether an address names a Unix-domain socket, as gRPC does."""
    return address.startswith("unix:")


def parse_socket(address: str) -> Path:
    """The path in `unix:/absolute/path` or `unix:///absolute/path`. Raises `ValueError`."""
    parsed = urllib.parse.urlsplit(address)
    path = urllib.parse.unquote(parsed.path)
    # A `?` or `#` that ends the address has no query and no fragment.
    is_bare = not (parsed.netloc or set("?#") & set(address))
    if not is_bare or not path.startswith("/") or path.endswith("/"):
        raise ValueError(f"{address}: expected unix:/absolute/path")
    if len(os.fsencode(path)) > PATH_BYTES_MAX or "\0" in path:
        raise ValueError(
            f"{address}: the path of a socket has at most {PATH_BYTES_MAX} bytes without NUL"
        )
    return Path(path)


def socket_address(path: Path) -> str:
    """The address of a socket, as gRPC takes it."""
    return "unix:" + urllib.parse.quote(str(path))


@contextlib.contextmanager
def binding(path: Path) -> Iterator[None]:
    """The block binds a socket: nothing listens there, and its file will be private.

    Raises `OSError` when others could write to the folder, another process listens there, or the
    file is not a socket.
    """
    _check_folder(path.parent)
    # Two services that replace one stale socket would each remove the other's, so one locks the
    # folder until it listens.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        _remove_stale(path)
        before = os.umask(0o177)
        try:
            yield
        finally:
            os.umask(before)
    finally:
        os.close(folder)


def _check_folder(folder: Path) -> None:
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(f"{folder} is not a folder")
    if found.st_uid != os.geteuid():
        raise OSError(f"{folder} belongs to another user: use a folder of this user")
    if found.st_mode & 0o022:
        raise OSError(f"others can write to {folder}: run chmod go-w {folder}")


def _remove_stale(path: Path) -> None:
    """Removes a socket on which nothing listens, and nothing else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(f"{path} exists and is not a socket: choose another path, or remove it")
    with socket.socket(socket.AF_UNIX) as probe:
        # A listener that accepts nothing would make it wait.
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise OSError(f"{path} is in use: another process listens there")
