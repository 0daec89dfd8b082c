"""Any events, for Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from eventcsv.event import Event, Kind, column_id

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        '"',
        ";",
        "\n",
        "\r\n",
        "\r",
        "=1+1",
        "007",
        "",
        "'",
        '""',
        '":"',
        "\0",
        "💥",
        "é",
        "NULL",
        "\uff1dSUM(A1)",
        "\t",
        "@x",
        " ",
    ]
)
columns = st.sampled_from(
    ["STATUS", "status", "note", "SUPPLIER", "Supplier Segment ", "Zulu", "alpha", "ALPHA", 'q";', ":"]
)
keys = st.sampled_from(["PO1", "PO2", "PO3", "PO4", " PO1"])


@st.composite
def an_event(draw: st.DrawFn) -> Event:
    cells = draw(st.dictionaries(columns, text, max_size=4))
    unique = {column_id(name): name for name in cells}
    kind = draw(st.sampled_from([Kind.RESULT] * 5 + [Kind.EDIT] * 2 + [Kind.STARTED]))
    number = draw(st.integers(1, 10**6))
    ts = f"2025-10-02T12:43:{number % 60:02d}.{number:06d}Z"
    return Event(f"test-00-{number}", ts, kind.value, draw(keys), {name: cells[name] for name in unique.values()})


logs = st.lists(an_event(), max_size=12)
