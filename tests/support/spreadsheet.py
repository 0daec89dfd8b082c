"""A spreadsheet with the CSV open, which is told line by line what to do: a real LibreOffice, driven over UNO.

Run by a Python that has the module `uno`; each command is answered with a line of JSON:

    load PATH          open a CSV as it is now
    type ROW COLUMN TEXT   into the cell of what was loaded, both counted from 0, the header being row 0
    save               over the file that was loaded, in its format
    cells              every cell, as shown
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import uno  # type: ignore[import-not-found]  # comes with LibreOffice
import unohelper  # type: ignore[import-not-found]  # the same
from com.sun.star.beans import PropertyValue  # type: ignore[import-not-found]  # the same
from com.sun.star.task import XInteractionHandler  # type: ignore[import-not-found]  # the same

FORMATS: Final = {
    "text": "59,34,76,1,,0,false,false,false",
    "default": "9/44/59,34,76,1,,0,false,true,false",
}
"""How a CSV is split: at ; alone, or as the import dialog proposes, at a tab and a comma as well."""

SAVED: Final = "59,34,76,1,,0,false,true,false"


class SaveAnyway(unohelper.Base, XInteractionHandler):  # type: ignore[misc]  # it knows no types
    """Says yes when it is asked whether to save though the file has changed since it was loaded."""

    def handle(self, request: Any) -> None:
        for answer in request.getContinuations():
            if answer.queryInterface(uno.getTypeByName("com.sun.star.task.XInteractionApprove")):
                answer.select()
                return


def prop(name: str, value: object) -> Any:
    made = PropertyValue()
    made.Name, made.Value = name, value
    return made


class Office:
    """A LibreOffice of our own."""

    def __init__(self, format_name: str) -> None:
        self._format = FORMATS[format_name]
        self._profile = tempfile.TemporaryDirectory(prefix="office-")
        pipe = f"eventcsv{Path(self._profile.name).name}"
        self._process = subprocess.Popen(
            [
                "soffice",
                "--headless",
                "--norestore",
                "--nologo",
                f"-env:UserInstallation={Path(self._profile.name).as_uri()}",
                f"--accept=pipe,name={pipe};urp;",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        local = uno.getComponentContext()
        resolver = local.ServiceManager.createInstanceWithContext("com.sun.star.bridge.UnoUrlResolver", local)
        for attempt in range(300):
            try:
                context = resolver.resolve(f"uno:pipe,name={pipe};urp;StarOffice.ComponentContext")
                break
            except Exception:  # not yet; UNO's own class has no other base
                if attempt == 299 or self._process.poll() is not None:
                    raise
                time.sleep(0.2)
        self._desktop = context.ServiceManager.createInstanceWithContext("com.sun.star.frame.Desktop", context)
        self._document: Any = None
        self._url = ""

    def load(self, path: str) -> int:
        if self._document:
            self._document.close(True)
        self._url = Path(path).as_uri()
        how = (
            prop("FilterName", "Text - txt - csv (StarCalc)"),
            prop("FilterOptions", self._format),
            prop("Hidden", True),
        )
        self._document = self._desktop.loadComponentFromURL(self._url, "_blank", 0, how)
        return len(self.cells())

    @property
    def _sheet(self) -> Any:
        return self._document.Sheets.getByIndex(0)

    def type(self, row: int, column: int, text: str) -> None:
        self._sheet.getCellByPosition(column, row).setFormula(text)

    def save(self) -> None:
        how = (
            prop("FilterName", "Text - txt - csv (StarCalc)"),
            prop("FilterOptions", SAVED),
            prop("Overwrite", True),
            prop("InteractionHandler", SaveAnyway()),
        )
        self._document.storeToURL(self._url, how)

    def cells(self) -> list[list[str]]:
        cursor = self._sheet.createCursor()
        cursor.gotoEndOfUsedArea(False)
        width, height = cursor.RangeAddress.EndColumn + 1, cursor.RangeAddress.EndRow + 1
        whole = self._sheet.getCellRangeByPosition(0, 0, width - 1, height - 1)
        return [list(row) for row in whole.getDataArray()]

    def close(self) -> None:
        if self._document:
            self._document.close(True)
        self._process.terminate()
        self._process.wait(30)
        self._profile.cleanup()


def main() -> None:
    """Do what is asked for on standard input until it ends."""
    office = Office(sys.argv[1])
    print(json.dumps("ready"), flush=True)  # noqa: T201  # this is how it answers
    try:
        for line in sys.stdin:
            name, *rest = json.loads(line)
            print(json.dumps(getattr(office, name)(*rest)), flush=True)  # noqa: T201  # the same
    finally:
        office.close()


if __name__ == "__main__":
    main()
