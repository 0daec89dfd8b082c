"""The promise: every command and block of the documents runs, in its order, and prints what it shows there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from documents import LANGUAGES, PROJECT, Block, Reader, blocks
from typer.main import get_command

from eventcsv.cli.app import app

README: Final = PROJECT / "README.md"
DESIGN: Final = PROJECT / "eventcsv/DESIGN.md"
BENCHMARKS: Final = PROJECT / "benchmarks/README.md"
DOCUMENTS: Final = [README, DESIGN]
COMMAND: Final = re.compile(r"^ *(?:\$ )?((?:make|\.venv/bin/python) .*?)(?: {3,}|$)", re.MULTILINE)
HEADING: Final = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
MARKED: Final = re.compile(r"`([^`]+)`")


def names(documents: list[Path]) -> list[str]:
    return [document.relative_to(PROJECT).as_posix() for document in documents]


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_a_document_runs_from_top_to_bottom(document: Path, tmp_path: Path) -> None:
    """Its blocks, done one after the other in a copy of the project, do and print what they say."""
    reader = Reader(tmp_path / "project")
    for block in blocks(document):
        reader.read(block)
    assert reader.ran


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_no_block_goes_untried(document: Path) -> None:
    """Each block is of a kind that is tried, or says why it is not; none hides behind an indentation."""
    assert [] == [block for block in blocks(document) if block.language not in LANGUAGES and not block.not_run]
    text = document.read_text()
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(document))
    fenced = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert [] == re.findall(r"^(?: {4}|\t).*", fenced, re.MULTILINE)


@pytest.mark.parametrize(
    "block",
    [
        Block("console", "$ echo one\ntwo\n"),
        Block("console", "$ python3 no_such_file.py\n"),
        Block("output", "what nobody printed\n"),
        Block("json", '{"v":1,"crc":"00000000"}\n'),
        Block("tree", "orders.csv\n"),
    ],
    ids=[
        "other output",
        "a command that fails",
        "output of nothing",
        "a line that is none",
        "files that are not there",
    ],
)
def test_what_is_wrong_in_a_document_is_found(block: Block, tmp_path: Path) -> None:
    """The control: a reader who is shown something else than what happens says so."""
    reader = Reader(tmp_path / "project")
    with pytest.raises((AssertionError, ValueError)):
        reader.read(block)


def test_the_commands_of_the_benchmarks_are_there() -> None:
    """Each one that their page names is a target of make, or a script that knows the options given to it."""
    commands = COMMAND.findall(BENCHMARKS.read_text())
    assert commands
    for program, *words in map(str.split, commands):
        if program == "make":
            subprocess.run(["make", "--dry-run", *words], cwd=PROJECT, check=True, capture_output=True)
            continue
        usage = subprocess.run(
            [sys.executable, words[0], "--help"], cwd=PROJECT, capture_output=True, text=True, check=True
        ).stdout
        assert set() == {word for word in words if word.startswith("--")}.difference(re.findall(r"--[\w-]+", usage))


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_link_leads_somewhere(document: Path) -> None:
    """To a file of the project, or to a heading of the same document."""
    text = document.read_text()
    headings = {re.sub(r"[^a-z0-9-]", "", line.lower().replace(" ", "-")) for line in HEADING.findall(text)}
    for target in LINK.findall(text):
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (document.parent / target).exists(), target


def test_every_test_that_is_named_is_there() -> None:
    """What says which hazard is tested where does not outlive the test."""
    folder = Path(__file__).parents[1]
    there = {name for path in folder.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    there |= {path.name for path in folder.rglob("test_*.py")}
    named = set(re.findall(r"`(test_\w+(?:\.py)?)`", (folder / "README.md").read_text()))
    assert len(named) > 50
    assert set() == named - there


def test_every_command_is_explained() -> None:
    """The table of the commands names each one that there is."""
    table = README.read_text().partition("| command |")[2].partition("\n\n")[0]
    explained = {name.split()[0] for row in table.splitlines()[2:] for name in MARKED.findall(row.split("|")[1])}
    assert set(vars(get_command(app))["commands"]) <= explained


def test_every_symptom_is_a_message() -> None:
    """What the README quotes as a symptom stands in the code, word for word."""
    code = "".join(path.read_text() for path in (PROJECT / "eventcsv").rglob("*.py"))
    table = README.read_text().partition("| symptom |")[2].partition("\n\n")[0]
    quoted = [name for row in table.splitlines()[2:] for name in MARKED.findall(row.split("|")[1])]
    assert len(quoted) > 10
    assert [] == [
        name for name in quoted if name.replace("PO_NUMBER", "{key}").replace("'{key}'", "{key!r}") not in code
    ]
