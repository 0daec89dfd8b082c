"""The promise: a log on a network file system, where locks and syncs may not hold, does not go unnoticed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from command_line import python

from eventcsv import EventCsv
from eventcsv.storage.network import network_file_system

if TYPE_CHECKING:
    from pathlib import Path

MOUNTINFO = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /home rw - nfs4 server:/home rw,vers=4.2
31 30 0:27 / /home/anna rw master:2 propagate_from:1 - btrfs /dev/vdb rw
32 22 0:28 / /mnt/my\040share rw - cifs //server/share rw
33 22 0:29 / /mnt/s3 rw - fuse.s3fs s3fs rw
34 22 0:30 / /mnt/usb rw - fuseblk /dev/sdb1 rw
35 22 0:31 / /mnt/phone rw - fuse.sshfs phone: rw
36 22 0:32 / /var/lib/overlay rw - overlay overlay rw,lowerdir=/nfs
37 22 254:0 /data /home/shared rw - ext4 /dev/vda rw
38 22 0:33 / /twice rw - nfs a:/ rw
39 38 0:34 / /twice rw - tmpfs tmpfs rw
a line that nobody understands
"""


COMMAND = """
import sys
from eventcsv.storage import network as medium
from eventcsv.__main__ import main
medium.MOUNTINFO = sys.argv.pop(1)
main()
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/input.events", None),
        ("/home/bert/input.events", "nfs4"),
        ("/home", "nfs4"),
        ("/homeless/input.events", None),
        ("/home/anna/input.events", None),
        ("/home/shared/input.events", None),
        ("/mnt/my share/input.events", "cifs"),
        ("/mnt/s3/x", "fuse.s3fs"),
        ("/mnt/usb/x", None),
        ("/mnt/phone/x", "fuse.sshfs"),
        ("/var/lib/overlay/x", None),
        ("/twice/x", None),
    ],
)
def test_the_longest_mount_point_decides(path: str, kind: str | None) -> None:
    """Mounts within mounts, bind mounts, spaces in names, one mount upon another."""
    assert kind == network_file_system(path, MOUNTINFO)


def test_it_is_told_once(
    csv_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The library logs a warning, once a job, and the command prints one; all goes on."""
    job = EventCsv(csv_path)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:26 / {tmp_path} rw - nfs4 server:/ rw\n")
    monkeypatch.setattr("eventcsv.storage.network.MOUNTINFO", str(mounts))
    with caplog.at_level(logging.WARNING, logger="eventcsv"):
        for _ in range(2):
            job.emit_result("PO1", "COMPLETED")
            job.compact()
    told = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    assert [("log.network_file_system", "nfs4")] == [(item["event"], item["type"]) for item in told]
    done = python(COMMAND, mounts, "compact", csv_path)
    assert done.stderr.startswith(f"Warning: {job.log_dir} is on a network file system (nfs4)")
