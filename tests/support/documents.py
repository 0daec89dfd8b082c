"""The documents, their blocks, and a reader who types them: in order, in a copy of the project, with real output.

What a block is shows from its language: `console` is typed and compared with what it prints, `python` and `sh` are
written to the file that their comment names, or run when it names none, `output` is what the block before printed,
`json` are lines of a log, `tree` are the files that the reader has by then. A comment before a block may say what has
to be done first, which file of another page it needs, or why it cannot be run:

    <!-- first: COMMAND -->
    <!-- with: FILE of PAGE -->
    <!-- not run: REASON -->
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eventcsv.log.line import sealed, unsealed

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT: Final = Path(__file__).parents[2]
README: Final = PROJECT / "README.md"
PAGES: Final = sorted((PROJECT / "eventcsv/docs").glob("*.md"))
DOCUMENTS: Final = [README, *PAGES]
LANGUAGES: Final = frozenset({"console", "python", "sh", "output", "json", "tree"})

_BLOCK: Final = re.compile(
    r"(?:^<!-- (?P<note>first|with|not run): (?P<text>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NOT_TYPED: Final = frozenset({"make demo", "make test"})  # the guide shows what the one prints; this is the other
_MADE: Final = re.compile(r"^(?:\.venv/|python3 |touch |mkdir |cp ).*\n", re.MULTILINE)  # what make says it does
_VOLATILE: Final = (
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>"),
    (r"_\d{8}_\d{6}_[0-9a-f]{8}\.csv", "_<backup>.csv"),
    (r"[0-9a-f]{8,12}-\d\d-\d+", "<id>"),
    (r"session [0-9a-f]{8}", "session <id>"),
    (r"[\d.,]+ kB", "<size>"),
    (r"byte [\d,]+\)", "byte <n>)"),
    (r"[\d,]+ a minute", "<rate>"),
    (r" in \d+:\d\d:\d\d", " in <time>"),
    (r"(next|until) \d\d:\d\d(:\d\d)?", r"\1 <time>"),
    (r"took       \d+\.\d\d s", "took <seconds>"),
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        language: What stands after the fence.
        body: What stands in it.
        first: The command to be run before it, or "".
        given: The block of another page whose file it needs, or None.
        not_run: Why it is not run, or "".
    """

    language: str
    body: str
    first: str = ""
    given: Block | None = None
    not_run: str = ""

    @property
    def file(self) -> str:
        """The file that a script says it is, or ""."""
        named = re.match(r"(?:#!.*\n)?# ([\w.]+\.(?:py|sh))\n", self.body)
        return named[1] if named else ""

    def commands(self) -> list[tuple[str, str]]:
        """Return the commands of a console block, each with the output shown below it."""
        if self.body.startswith("$ make demo\n"):  # it prints commands of its own
            command, _, shown = self.body.partition("\n")
            if not shown.startswith("$ eventcsv"):
                return [(line[2:], "") for line in self.body.splitlines()]
            return [(command[2:], shown)]
        parts = re.split(r"^\$ (.*)\n", self.body, flags=re.MULTILINE)[1:]
        return list(zip(parts[::2], parts[1::2], strict=True))


def blocks(document: Path) -> list[Block]:
    """Return the fenced blocks of a document."""
    return [
        Block(
            found["language"],
            found["body"],
            first=found["text"] if found["note"] == "first" else "",
            given=_file(document.parent, found["text"]) if found["note"] == "with" else None,
            not_run=found["text"] if found["note"] == "not run" else "",
        )
        for found in _BLOCK.finditer(document.read_text())
    ]


def _file(folder: Path, name: str) -> Block:
    """Return the script that a page shows, by "FILE of PAGE"."""
    file, _, page = name.partition(" of ")
    (script,) = [block for block in blocks(folder / page) if block.file == file]
    return script


def settled(text: str) -> str:
    """Return a text with everything that differs from run to run replaced, and failures in the order of their keys."""
    for pattern, replacement in _VOLATILE:
        text = re.sub(pattern, replacement, text)
    failures = iter(sorted(re.findall(r"^.* PO\d+: ERROR .*$", text, re.MULTILINE)))
    return re.sub(r"^.* PO\d+: ERROR .*$", lambda _: next(failures), text, flags=re.MULTILINE)


def rough(text: str) -> str:
    """Return the story of the demo without what depends on the moment of the kill: numbers, and lines that may lack."""
    moment = re.compile(r"  (?:CSV  .* behind|in flight|retried|torn line|  +no result|[\d,]+ events that).*\n")
    numberless = re.sub(r"[\d,.:]*\d", "<n>", settled(moment.sub("", text)))
    return re.sub(r"^(.* (?:PO<n>: ERROR|session) .*\n)+", "<lines>\n", numberless, flags=re.MULTILINE)


class Reader:
    """Does what a document says, block by block.

    Args:
        place: Where: a folder for a copy of the project.
        servers: The addresses of the servers that the documents call db.example and portal.example.
    """

    def __init__(self, place: Path, servers: Mapping[str, str] | None = None) -> None:
        ignored = shutil.ignore_patterns(".*_cache", ".git", ".venv*", ".hypothesis", "input", "backup", "__pycache__")
        shutil.copytree(PROJECT, place, ignore=ignored)
        if Path(sys.prefix, "installed").exists():  # what the README's first command would install is there
            (place / ".venv").symlink_to(sys.prefix)
            os.utime(place / "pyproject.toml", (0, 0))  # else make would install anew after each change of branch
        self.place = place
        self._servers = servers or {}
        self.ran: list[str] = []
        self._printed = ""
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "EVENTCSV", "PYTEST"))
        }

    def read(self, block: Block) -> None:
        """Do what a block says, and compare what comes of it with what the block shows."""
        if block.not_run:
            return
        if block.first:
            self._sh(block.first)
        if block.given:
            self._write(block.given)
        if block.language in {"python", "sh"}:
            self._write(block)
        elif block.language == "console":
            for command, shown in block.commands():
                self._type(command, shown)
        else:
            self._compare(block)

    def _write(self, block: Block) -> None:
        """Write a script to its file, or run it when it names none."""
        script = self.place / (block.file or "example.py")
        script.write_text(self._reached(block.body))
        script.chmod(0o755)
        if not block.file:
            self._printed = self._sh(".venv/bin/python example.py").stdout

    def _compare(self, block: Block) -> None:
        """Compare what a block shows with what is there."""
        match block.language:
            case "output":
                assert block.body == self._printed
            case "json":
                for line in block.body.splitlines():
                    assert f"{line}\n".encode() == sealed(unsealed(line.encode()))
            case "tree":
                assert block.body.splitlines() == self._files(Path(block.body.partition("\n")[0]))
            case _:
                raise ValueError(f"nobody knows how to try a block of {block.language!r}")

    def _type(self, command: str, shown: str) -> None:
        if command in _NOT_TYPED and not shown:
            return
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self._environment[name] = self._reached(value)
            return
        if command == "source .venv/bin/activate":
            self._environment["PATH"] = f"{self.place}/.venv/bin{os.pathsep}{self._environment['PATH']}"
            return
        done = self._sh(command)
        if shown:
            like = rough if command == "make demo" else settled
            assert like(shown) == like(_MADE.sub("", done.stdout)), f"{command}\n{done.stdout}"
        self.ran.append(command)

    def _sh(self, command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self._reached(command),
            shell=True,
            cwd=self.place,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        for name, address in self._servers.items():
            done.stdout = done.stdout.replace(address, name)
        assert done.returncode in {0, 1, 3}, f"{command}: {done.stderr}"
        assert "Traceback" not in done.stderr, f"{command}: {done.stderr}"
        return done

    def _reached(self, text: str) -> str:
        """Return a text with the addresses of the servers that it names."""
        for name, address in self._servers.items():
            text = text.replace(name, address)
        return text

    def _files(self, csv: Path) -> list[str]:
        """Return the files of a job as a tree block shows them."""
        folder = self.place / csv.parent
        found = [*folder.glob(csv.name), *folder.glob(f"{csv.stem}.events/*"), *folder.glob(f"backup/{csv.stem}_*")]
        names = [re.sub(r"_\d{8}_\d{6}_[0-9a-f]{8}", "_YYYYMMDD_HHMMSS_<id>", str(path)) for path in found]
        order = [re.sub(r"events-\d{6}", "events-000001", name) for name in names]
        return sorted({name.removeprefix(f"{self.place}/") for name in order}, key=lambda name: ("/" in name, name))
