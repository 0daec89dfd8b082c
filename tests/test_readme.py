"""The promise: every command and block of the README runs, in its order, and prints what the README shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eventcsv.event import decode, sealed

if TYPE_CHECKING:
    import pytest

PROJECT: Final = Path(__file__).parent.parent
BLOCKS: Final = re.findall(r"^```(\w+)\n(.*?)^```$", (PROJECT / "README.md").read_text(), re.MULTILINE | re.DOTALL)

MADE: Final = re.compile(r"^(?:\.venv/|python3 |touch |mkdir |cp ).*\n", re.MULTILINE)  # what make says it does
VOLATILE: Final = (
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>"),
    (r"_\d{8}_\d{6}_[0-9a-f]{8}\.csv", "_<backup>.csv"),
    (r"[0-9a-f]{8,12}-\d\d-\d+", "<id>"),
    (r"session [0-9a-f]{8}", "session <id>"),
    (r"[\d.,]+ kB", "<size>"),
    (r"[\d,]+ a minute", "<rate>"),
    (r" in \d+:\d\d:\d\d", " in <time>"),
    (r"took       \d+\.\d\d s", "took <seconds>"),
)


def settled(text: str) -> str:
    """Return a text with everything that differs from run to run replaced."""
    for pattern, replacement in VOLATILE:
        text = re.sub(pattern, replacement, text)
    return text


def rough(text: str) -> str:
    """Return the story of the demo without what depends on the moment of the kill: numbers, and lines that may lack."""
    moment = re.compile(r"  (?:CSV  .* behind|in flight|retried|torn line|  +no result|[\d,]+ events that).*\n")
    numberless = re.sub(r"[\d,.:]*\d", "<n>", settled(moment.sub("", text)))
    return re.sub(r"^(.* (?:PO<n>: ERROR|session) .*\n)+", "<lines>\n", numberless, flags=re.MULTILINE)


def commands_of(block: str) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with the output shown below it."""
    parts = re.split(r"^\$ ((?!eventcsv).*)\n", block, flags=re.MULTILINE)[1:]  # the demo prints some of its own
    return list(zip(parts[::2], parts[1::2], strict=True))


def test_the_readme_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its console and Python blocks, run in a copy of the project, print what it says they print."""
    ignored = shutil.ignore_patterns(".*_cache", ".git", ".venv*", ".hypothesis", "input", "backup", "__pycache__")
    place = tmp_path / "project"
    shutil.copytree(PROJECT, place, ignore=ignored)
    if Path(sys.prefix, "installed").exists():  # what the README's first command would install is there
        (place / ".venv").symlink_to(sys.prefix)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "EVENTCSV", "PYTEST"))
    }
    monkeypatch.chdir(place)
    printed = ""
    ran = []
    for language, block in BLOCKS:
        for command, shown in commands_of(block) if language == "console" else []:
            if command == "make test" or (command == "make demo" and not shown):  # this is that; below it is shown
                continue
            done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode in {0, 1, 3}, done.stderr
            if shown:
                like = rough if command == "make demo" else settled
                assert like(shown) == like(MADE.sub("", done.stdout))
            elif command == "make compact":
                shutil.rmtree(place / "data/input")  # the README shows below what it printed
            ran.append(command)
        if language == "python" and (name := re.match(r"# (\w+\.py)\n", block)):
            (place / name[1]).write_text(block)
        elif language == "python":
            (place / "example.py").write_text(block)
            script = [str(place / ".venv/bin/python"), "example.py"]
            printed = subprocess.run(script, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        if language == "output":
            assert block == printed
    assert len(ran) > 6


def test_the_line_in_the_readme_is_one() -> None:
    """The example of the format is a line that eventcsv reads, and would write."""
    line = next(block for language, block in BLOCKS if language == "json").strip()
    event = decode(line.encode())
    record = {"v": 1, "id": event.id, "ts": event.ts, "kind": event.kind, "key": event.key, "set": event.cells}
    assert line == sealed(record).decode().strip()
