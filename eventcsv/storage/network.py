"""What the log stands on: a file system on which locks and syncs mean something, or one across a network.

An advisory lock on NFS or SMB may exclude nobody, and a sync may promise less than a local one ("How To Corrupt An
SQLite Database File", section 2.1). Linux tells in /proc/self/mountinfo; elsewhere nothing is said.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MOUNTINFO: Final = "/proc/self/mountinfo"
_NETWORK: Final = re.compile(
    r"nfs4?|cifs|smb3|smbfs|9p|afs|ceph|glusterfs|lustre|gpfs|beegfs|ncpfs|coda|davfs"
    r"|fuse\.(sshfs|rclone|s3fs|gcsfuse|gvfsd-fuse|davfs2?|glusterfs|ceph.*|onedriver|google-drive-ocamlfuse|.*drive.*)"
)
_MOUNT_POINT: Final = 4  # fields before it: mount id, parent id, device, root
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def network_file_system(path: str, mountinfo: str) -> str | None:
    """Return the type of the network file system that a path is on, or None when it is on a local one.

    Args:
        path: An absolute path without symbolic links; it need not be there.
        mountinfo: The text of /proc/self/mountinfo, see proc_pid_mountinfo(5); of several mounts on one place the last
            one counts.
    """
    found, longest = "", -1
    for place, kind in _mounts(mountinfo):
        if f"{path}/".startswith(f"{place}/") and len(place) >= longest:
            found, longest = kind, len(place)
    return found if _NETWORK.fullmatch(found) else None


def _mounts(mountinfo: str) -> Iterator[tuple[str, str]]:
    """Yield each place where something is mounted, without a slash at its end, and the type of the file system."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")[_MOUNT_POINT:]
        if fields and after:
            yield _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), fields[0]).rstrip("/"), after.split(" ")[0]


def is_mount_point(path: str) -> bool:
    """Tell whether something is mounted at a path itself, as a file of its own is in a container.

    Args:
        path: An absolute path without symbolic links.
    """
    try:
        text = Path(MOUNTINFO).read_bytes().decode("latin-1")  # an octal stands for a byte
    except OSError:  # where there is none, a file that is mounted is on another device
        return os.path.ismount(path)
    return os.fsencode(path).decode("latin-1") in {place for place, _ in _mounts(text)}


def network_file_system_of(path: str) -> str | None:
    """Return the type of the network file system that a path is on, or None: a local one, or nobody knows."""
    try:
        return network_file_system(os.path.realpath(path), Path(MOUNTINFO).read_text(errors="replace"))
    except OSError:
        return None
