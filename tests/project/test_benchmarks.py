"""The promise: the benchmarks run, and what they print comes from their run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest
from conftest import wait_until

BENCHMARKS: Final = Path(__file__).parents[2] / "benchmarks"


def start(place: Path, script: str, *args: str) -> subprocess.Popen[str]:
    """Start a script of the suite there."""
    line = [sys.executable, str(BENCHMARKS / script), *args]
    return subprocess.Popen(line, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the smallest run of the whole suite left."""
    place = tmp_path_factory.mktemp("bench")
    run = start(place, "bench.py", "--scale", "smoke", "--out", "out")
    _, errors = run.communicate()
    assert 0 == run.returncode, errors
    assert ["out"] == os.listdir(place)
    return place / "out"


def test_every_measurement_has_its_figures(page: Path) -> None:
    """Each target is measured, except against peers that are not installed, and the tables name every contestant."""
    text = (page / "README.md").read_text()
    missing = [line for line in text.splitlines() if "not measured" in line]
    absent = [
        peer for peer in ("duckdb", "pandas") if peer not in json.loads((page / "results.json").read_text())["machine"]
    ]
    assert [] == [line for line in missing if not any(peer in line.lower() for peer in absent)]
    for what in (
        "emit_result()",
        "compact()",
        "compact() of a save",
        "replay()",
        "resume",
        "a whole run",
        "SQLite, kept connection",
        "visible",
    ):
        assert what in text


def test_the_page_is_made_of_the_raw_figures_alone(page: Path) -> None:
    """Built anew from the JSON it is the same page; with another figure in the JSON it is another one."""
    text = (page / "README.md").read_text()
    rebuilt = start(page, "page.py", "results.json")
    rebuilt.communicate()
    assert (0, text) == (rebuilt.returncode, (page / "README.md").read_text())
    raw = (page / "results.json").read_text()
    try:
        report = json.loads(raw)
        changed = report["figures"][0]
        changed["rounds"] = [7_777.0] * len(changed["rounds"])
        (page / "results.json").write_text(json.dumps(report))
        start(page, "page.py", "results.json").communicate()
        assert "7,777" in (page / "README.md").read_text()
    finally:
        (page / "results.json").write_text(raw)


@pytest.mark.parametrize("name", ["growth-events.svg", "growth-rows.svg", "replay.svg"])
def test_the_plots_are_whole(page: Path, name: str) -> None:
    """Each plot is well-formed, has a line for each label, and knows light and dark."""
    text = (page / name).read_text()
    tags = [element.tag.rpartition("}")[2] for element in ET.fromstring(text).iter()]
    assert tags.count("polyline") == len(re.findall(r'style="fill:', text)) > 1
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_run_that_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end it, and its files are gone."""
    run = start(tmp_path, "bench.py", "--scale", "normal", "--only", "emit")
    wait_until(lambda: list(tmp_path.glob(".bench-*/emit/input.csv")), "the first contestant")
    run.send_signal(number)
    run.communicate()
    assert 0 != run.returncode
    assert [] == os.listdir(tmp_path)


def test_the_check_fails_when_something_has_become_slow(tmp_path: Path) -> None:
    """A ratio over its limit is measured again, then reported, and ends in failure; one below it passes at once."""
    code = (
        "from check import Check\n"
        "def check(ours): return Check('it', 2, 1, lambda: ours, lambda: 1.0)\n"
        "print(check(1.5).holds(), check(2.5).holds())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert (1, 3, 1) == tuple(done.stdout.count(word) for word in (": ok", ": once more", ": TOO SLOW"))
    assert done.stdout.endswith("True False\n")
