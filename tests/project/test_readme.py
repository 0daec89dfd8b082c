"""The promise: every command and block of the documents runs, in its order, and prints what it shows there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from command_line import run
from conftest import cannot
from documents import DOCUMENTS, LANGUAGES, PAGES, PROJECT, README, Block, Reader, blocks
from portal import Portal
from servers import PgServer
from typer.main import get_command

from eventcsv.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

BENCHMARKS: Final = PROJECT / "benchmarks/README.md"
COMMANDS: Final = PROJECT / "eventcsv/docs/commands.md"
TROUBLESHOOTING: Final = PROJECT / "eventcsv/docs/troubleshooting.md"
COMMAND: Final = re.compile(r"^ *(?:\$ )?((?:make|\.venv/bin/python) .*?)(?: {3,}|$)", re.MULTILINE)
HEADING: Final = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCED: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
MARKED: Final = re.compile(r"`([^`]+)`")
OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
SERVERS: Final = {"db.example": "database", "portal.example": "portal"}
OF_OTHERS: Final = {"--init", "--joblog", "--resume"}  # docker's, and GNU parallel's


def names(documents: list[Path]) -> list[str]:
    return [document.relative_to(PROJECT).as_posix() for document in documents]


@pytest.fixture
def database() -> Iterator[str]:
    """The address of a PostgreSQL server with the database and the roles that the page about hosts names."""
    server = PgServer()
    try:
        with psycopg.connect(server.create().url, autocommit=True) as connection:
            for role in ("owner", "ana", "scraper"):
                connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute("CREATE DATABASE work OWNER owner")
        yield f"127.0.0.1:{server.port}"
    finally:
        server.remove()


@pytest.fixture
def portal() -> Iterator[str]:
    """The address of the web server that the recipes download from."""
    if shutil.which("curl") is None:
        cannot("curl is not installed")
    with Portal() as server:
        yield server.address


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_a_document_runs_from_top_to_bottom(document: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Its blocks, done one after the other in a copy of the project, do and print what they say."""
    named = [name for name in ("db.example", "portal.example") if name in document.read_text()]
    reader = Reader(tmp_path / "project", {name: request.getfixturevalue(SERVERS[name]) for name in named})
    for block in blocks(document):
        reader.read(block)
    assert reader.ran or not blocks(document)


def test_the_pages_are_what_the_readme_lists() -> None:
    """Each page is listed there, and says in its first sentence for whom it is; the README stays short."""
    listed = {
        target for target in LINK.findall(README.read_text().partition("## The documents")[2]) if "docs" in target
    }
    assert set(names(PAGES)) <= listed
    assert [] == [page.name for page in PAGES if not page.read_text().split("\n\n")[1].startswith("For who")]
    assert len(README.read_text().splitlines()) <= 180


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_no_block_goes_untried(document: Path) -> None:
    """Each block is of a kind that is tried, or says why it is not; none hides behind an indentation."""
    assert [] == [block for block in blocks(document) if block.language not in LANGUAGES and not block.not_run]
    text = document.read_text()
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(document))
    assert [] == re.findall(r"^(?: {4}|\t).*", FENCED.sub("", text), re.MULTILINE)


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


def anchors(document: Path) -> set[str]:
    """Return what a link into a document may name."""
    headings = HEADING.findall(FENCED.sub("", document.read_text()))
    return {re.sub(r"[^a-z0-9-]", "", line.lower().replace(" ", "-")) for line in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_link_leads_somewhere(document: Path) -> None:
    """To a file of the project, and a heading that is there; one of a page to a page, as only those are installed."""
    for target in LINK.findall(FENCED.sub("", document.read_text())):
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), target
        assert there in PAGES or document == README, target
        assert not anchor or anchor in anchors(there), target


def test_every_test_that_is_named_is_there() -> None:
    """What says which hazard is tested where does not outlive the test."""
    folder = Path(__file__).parents[1]
    there = {name for path in folder.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    there |= {path.name for path in folder.rglob("test_*.py")}
    named = set(re.findall(r"`(test_\w+(?:\.py)?)`", (folder / "README.md").read_text()))
    assert len(named) > 50
    assert set() == named - there


def test_every_command_is_explained() -> None:
    """The table of the README names each one that there is, and the page of the commands has a heading for it."""
    there = set(vars(get_command(app))["commands"])
    table = README.read_text().partition("| command |")[2].partition("\n\n")[0]
    explained = {name.split()[0] for row in table.splitlines()[2:] for name in MARKED.findall(row.split("|")[1])}
    assert there <= explained
    assert there <= anchors(COMMANDS)


def options(command: Any) -> set[str]:  # a command of typer's, which it does not export
    """Return the options that a command knows, and those of the commands below it."""
    own = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    return own.union(*map(options, getattr(command, "commands", {}).values())) | {"--help"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_what_is_named_in_passing_is_there(document: Path) -> None:
    """Commands and options that stand in a sentence, too, are ones that there are."""
    top = get_command(app)
    for marked in MARKED.findall(FENCED.sub("", document.read_text())):
        words = marked.split()
        if words[0] == "eventcsv" and len(words) > 1 and not words[1].startswith("-"):
            command = vars(top)["commands"].get(words[1])
            assert command or words[1] == "COMMAND", marked
            assert set() == set(OPTION.findall(marked)) - options(command or top), marked
        assert set() == set(OPTION.findall(marked)) - options(top) - OF_OTHERS, marked


def test_help_names_the_pages() -> None:
    """Where they are installed, in one line."""
    told = run("--help", COLUMNS="500", NO_COLOR="1").stdout
    assert f"Documents: {PAGES[0].parent}" in [line.strip() for line in told.splitlines()]


def test_every_symptom_is_a_message() -> None:
    """What is quoted as a symptom stands in the code, word for word."""
    code = "".join(path.read_text() for path in (PROJECT / "eventcsv").rglob("*.py"))
    table = TROUBLESHOOTING.read_text().partition("| symptom |")[2].partition("\n\n")[0]
    quoted = [name for row in table.splitlines()[2:] for name in MARKED.findall(row.split("|")[1])]
    assert len(quoted) > 10
    assert [] == [
        name for name in quoted if name.replace("PO_NUMBER", "{key}").replace("'{key}'", "{key!r}") not in code
    ]
