"""A file that people asked for: where it may not go, whether it may replace what is there, and written whole."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from eventcsv import masking
from eventcsv.errors import UnsafePath

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventcsv.storage.files import Storage
    from eventcsv.storage.rights import Rights


def check_output(
    storage: Storage, path: str, *, force: bool, refusal: str, is_earlier: Callable[[str], bool] | None = None
) -> None:
    """Refuse a path before the long part that the content takes.

    Args:
        storage: The seam to the file system.
        path: Where the file would go.
        force: Replace whatever file is there.
        refusal: What to say of a file that is there and stays.
        is_earlier: Tells whether it is an earlier one of the kind, which may be replaced; by default none may.

    Raises:
        UnsafePath: Its folder is not there, or something else is at the path.
    """
    folder = os.path.dirname(path)
    if not storage.exists(os.path.join(folder, ".")):  # which a file has not
        raise UnsafePath(f"{folder}: there is no such folder. Make it, or name another file")
    if storage.check_regular(path) and not force and not (is_earlier and is_earlier(path)):
        raise UnsafePath(f"{path}: is there already{refusal}")


def write_output(storage: Storage, path: str, data: bytes, *, like: Rights | None) -> None:
    """Put `data` at `path`, durably and in one step, with the rights to have; by default it is ours alone."""
    directory, name = os.path.split(path)
    # Random, so that two who write to the same path cannot take each other's half-written file for their own.
    temporary = os.path.join(directory, f".{name}.{secrets.token_hex(4)}.tmp")
    if lost := storage.put(path, data, by_way_of=temporary, like=like):
        masking.get_logger().warning("file.rights_not_kept", path=path, lost=lost)
