"""The promise: a wing imports what lies below it, and nothing beside or above it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(__file__).parents[2] / "eventcsv"
GROUND: Final = {"event", "errors", "masking", "signals", "version"}
BELOW: Final[dict[str, set[str]]] = {
    "storage": set(),
    "log": {"storage"},
    "worker": {
        "log",
        "storage",
        "table",
    },  # of the table `cells` only: is there a key column?
    "table": {"log"},
    "view": {"table", "log", "storage"},
    "run": {"view", "worker", "log"},
    "report": {"view", "table", "log", "storage"},
    "formats": {"view", "table", "log", "storage"},
    "job": {"storage", "log", "worker", "table", "view", "run", "report", "formats"},
    "cli": {"storage", "log", "worker", "table", "view", "run", "report", "formats", "job"},
}
"""What each wing may import, the ground aside. What only the types of a wing need counts as well."""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield what of eventcsv a file imports, modules and names of one, wherever in it, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.startswith("eventcsv."))
        elif isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("eventcsv."):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def faults(package: Path) -> list[str]:
    found = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        wing = place.parts[0].removesuffix(".py")
        if wing in {"__init__", "__main__"}:
            continue
        for line, module in imports(path):
            target = module.split(".")[1]
            if target not in GROUND | {wing} | BELOW.get(wing, set()):
                found.append(f"{place}:{line} imports {module}")
    return found


def test_imports_point_downwards() -> None:
    """Every wing is known, and none imports what is beside or above it."""
    wings = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert wings == GROUND | BELOW.keys() | {"__init__", "__main__"}
    assert [] == faults(PACKAGE)


def circles(package: Path) -> list[str]:
    """Return the modules that import each other, on whatever way round, or only come after such ones."""
    paths = {
        ".".join(("eventcsv", *path.relative_to(package).with_suffix("").parts)): path for path in package.rglob("*.py")
    }
    left = {
        name: {found for _, what in imports(path) for found in (what, what.rpartition(".")[0])} & paths.keys()
        for name, path in paths.items()
    }
    while free := {name for name, below in left.items() if not below & left.keys()}:
        left = {name: below for name, below in left.items() if name not in free}
    return sorted(left)


def test_no_modules_import_each_other(tmp_path: Path) -> None:
    """Also within a wing, and for types only."""
    assert [] == circles(PACKAGE)
    (tmp_path / "view").mkdir()
    (tmp_path / "view/one.py").write_text("if TYPE_CHECKING:\n    from eventcsv.view.two import Two")
    (tmp_path / "view/two.py").write_text("from eventcsv.view.three import three")
    (tmp_path / "view/three.py").write_text("from eventcsv.view import one\nfrom eventcsv.errors import Error")
    assert ["eventcsv.view.one", "eventcsv.view.three", "eventcsv.view.two"] == circles(tmp_path)


def test_an_import_that_points_up_is_found(tmp_path: Path) -> None:
    """Also one within a function, or for a type only."""
    for name, text in {
        "log/one.py": "from eventcsv.view.backup import Backup",
        "table/two.py": "def f():\n    from eventcsv import view",
        "event.py": "import eventcsv.storage",
        "view/three.py": "if TYPE_CHECKING:\n    from eventcsv.job import EventCsv",
        "view/four.py": "from eventcsv.table.fold import Fold\nfrom eventcsv import event",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert ["event.py:1", "log/one.py:1", "table/two.py:2", "view/three.py:2"] == [
        fault.partition(" ")[0] for fault in faults(tmp_path)
    ]


def test_the_design_shows_the_same() -> None:
    """The design says of each wing what it may import here."""
    told: dict[str, set[str]] = {}
    for row in (PACKAGE / "docs/design.md").read_text().partition("| wing |")[2].partition("\n\n")[0].splitlines()[3:]:
        wings, _, below = row.strip("| ").split(" | ")
        named = {word for word in re.findall(r"[a-z]+", below.partition(", for")[0]) if word in BELOW}
        told |= dict.fromkeys(wings.split(", "), set(told) if below.startswith("all above") else named)
    assert told == BELOW


def test_each_wing_names_its_rooms() -> None:
    """What the first paragraph of a wing does not name nobody finds there; and it names none that is not there."""
    missing = []
    for face in sorted(PACKAGE.rglob("*/__init__.py")):
        told = ast.get_docstring(ast.parse(face.read_text())) or ""
        rooms = {path.stem for path in face.parent.glob("*.py")} - {"__init__"}
        missing += [f"{face.parent.name}/{room}" for room in sorted(rooms) if not re.search(rf"\b{room}\b", told)]
    assert [] == missing
