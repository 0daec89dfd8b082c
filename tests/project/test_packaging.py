"""The promise: what is published is all that is needed, installs where nothing else is, and works there."""

from __future__ import annotations

import email
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Final

from conftest import cannot

from eventcsv.version import __version__

PROJECT: Final = Path(__file__).parents[2]


def sources() -> list[str]:
    """Return the files of the project, those that are not committed yet among them."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        cannot("this is no checkout, so nobody can tell what belongs to the project")
    return [name for name in done.stdout.splitlines() if (PROJECT / name).exists()]


def test_what_is_published_is_all_that_is_needed(tmp_path: Path) -> None:
    """A wheel and an sdist are built, hold what they should, and the wheel works where nothing else is installed."""
    # One test, since one build and one installation take long enough.
    dist = build(tmp_path / "dist")
    check_wheel(dist)
    check_sdist(dist)
    check_metadata(dist)
    check_commands(install(dist, tmp_path / "empty"), tmp_path)


def build(folder: Path) -> Path:
    """Build an sdist, and a wheel of that, and return their folder."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(PROJECT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return folder


def install(dist: Path, place: Path) -> Path:
    """Install the wheel, and what it asks for, in an environment of its own; return the folder of its commands."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin/python"), "install", "--quiet", "--no-compile"]
    wheel = str(dist / f"eventcsv-{__version__}-py3-none-any.whl")
    done = subprocess.run([*pip, wheel], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    return place / "bin"


def check_wheel(built: Path) -> None:
    """Every file of eventcsv/, whatever its suffix, and no test, benchmark or sample."""
    with zipfile.ZipFile(built / f"eventcsv-{__version__}-py3-none-any.whl") as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name for name in sources() if name.startswith("eventcsv/")} == names
    assert {"eventcsv/py.typed", "eventcsv/docs/guide.md", "eventcsv/docs/recipes.md"} <= names


def check_sdist(built: Path) -> None:
    """Package, tests, samples, benchmarks, Makefile and README, and nothing that is not of the project."""
    with tarfile.open(built / f"eventcsv-{__version__}.tar.gz") as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {name for name in sources() if not name.startswith(".")} | {".gitignore", "PKG-INFO"} == names


def check_metadata(built: Path) -> None:
    """Name, the one version, a summary, the README, the Python that it takes; development tools are an extra."""
    with zipfile.ZipFile(built / f"eventcsv-{__version__}-py3-none-any.whl") as wheel:
        said = email.message_from_bytes(wheel.read(f"eventcsv-{__version__}.dist-info/METADATA"))
        commands = wheel.read(f"eventcsv-{__version__}.dist-info/entry_points.txt").decode()
    assert ("eventcsv", __version__, ">=3.11") == (said["Name"], said["Version"], said["Requires-Python"])
    assert ("text/markdown", True) == (said["Description-Content-Type"], "# eventcsv" in str(said.get_payload()))
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert all(said[field] for field in ("Summary", "Keywords", "Author"))
    needed = [name for name in said.get_all("Requires-Dist", []) if "extra ==" not in name]
    assert not [name for name in needed if name.startswith(("pytest", "mypy", "ruff", "hypothesis", "build"))]
    assert "eventcsv = eventcsv.__main__:main" in commands


def check_commands(installed: Path, tmp_path: Path) -> None:
    """The command, and `python -m eventcsv`, record, fold, tell, export and import in an environment of its own."""
    (tmp_path / "po.csv").write_text("PO_NUMBER;STATUS\nPO1;\n")

    def run(*command: str) -> str:
        isolated = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(command, cwd=tmp_path, env=isolated, capture_output=True, text=True, check=False)
        assert (0, "") == (done.returncode, done.stderr)
        return done.stdout

    eventcsv = str(installed / "eventcsv")
    assert f"eventcsv {__version__}\n" == run(eventcsv, "--version")
    assert f"eventcsv {__version__}\n" == run(str(installed / "python"), "-m", "eventcsv", "--version")
    told = run("env", "COLUMNS=500", eventcsv, "--help")
    assert "Usage:" in told
    assert Path(told.partition("Documents:")[2].split()[0], "guide.md").is_file()
    run(eventcsv, "emit", "po.csv", "PO1", "COMPLETED")
    assert "COMPLETED 1" in run(eventcsv, "compact", "po.csv")
    assert "1 of 1 PO done" in run(eventcsv, "status", "po.csv")
    for name in ("out.xlsx", "out.parquet", "out.jsonl"):
        assert "1 row" in run(eventcsv, "export", "po.csv", "-o", name)
    assert "1 row" in run(eventcsv, "import", "out.xlsx", "again.csv")
    assert "COMPLETED" in (tmp_path / "again.csv").read_text()
