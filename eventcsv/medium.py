"""What the log stands on: a file system on which locks and syncs mean something, or one across a network.

An advisory lock on NFS or SMB may exclude nobody, and a sync may promise less than a local one ("How To Corrupt An
SQLite Database File", section 2.1). Linux tells in /proc/self/mountinfo; elsewhere nothing is said.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

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
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")[_MOUNT_POINT:]
        if not fields or not after:
            continue
        kind = after.split(" ")[0]
        place = _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), fields[0]).rstrip("/")
        if f"{path}/".startswith(f"{place}/") and len(place) >= longest:
            found, longest = kind, len(place)
    return found if _NETWORK.fullmatch(found) else None


def network_file_system_of(path: str) -> str | None:
    """Return the type of the network file system that a path is on, or None: a local one, or nobody knows."""
    try:
        return network_file_system(os.path.realpath(path), Path(MOUNTINFO).read_text(errors="replace"))
    except OSError:
        return None
