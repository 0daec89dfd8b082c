"""Which of the pending POs a run is for, and in which order. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from eventcsv.event import BLANKS, done_words
from eventcsv.view.progress import work_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from eventcsv.view.projection import Projection

_NUMBER = r"^\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)\s*$"


@dataclass(frozen=True, slots=True)
class Choice:
    """What an operator asks for; by default every pending PO, in the order of the CSV.

    Attributes:
        only: These POs and no others; None for all.
        status: Those whose STATUS is one of these, case aside; None for any.
        order_by: The column whose cells say the order: numbers as numbers, before other texts, empty ones last. With a
            "-" before its name the greatest come first.
        limit: How many at most.
    """

    only: tuple[str, ...] | None = None
    status: tuple[str, ...] | None = None
    order_by: str | None = None
    limit: int | None = None

    @staticmethod
    def of(
        *,
        only: Collection[str] | str | None = None,
        status: Collection[str] | str | None = None,
        order_by: str | None = None,
        limit: int | None = None,
    ) -> Choice:
        """Return a choice as a caller says it.

        Raises:
            ValueError: It makes no sense.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"limit: has to be 1 or more, not {limit!r}")
        keys = (only,) if isinstance(only, str) else only
        words = None if status is None else done_words(status)
        return Choice(None if keys is None else tuple(key.strip(BLANKS) for key in keys), words, order_by, limit)

    def check(self, projection: Projection, done: Collection[str] | str, *, source: str) -> None:
        """Refuse what cannot be meant.

        Args:
            projection: The CSV at the log's present end.
            done: The STATUS words that count as done.
            source: What to call the CSV.

        Raises:
            ValueError: A PO is in no row, a STATUS counts as done, or there is no such column.
        """
        if self.only is not None:
            keys = set(projection.table.keys())
            missing = [key for key in self.only if key not in keys]
            if missing or not self.only:
                more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""  # noqa: PLR2004  # a few
                named = ", ".join(map(repr, missing[:3])) + more
                raise ValueError(f"only: {named or 'names no PO'}{f' is in no row of {source}' if missing else ''}")
        if over := set(self.status or ()).intersection(done_words(done)):
            raise ValueError(
                f"status: {', '.join(sorted(over))} counts as done, so nothing that stands so is pending. "
                "Name the others as done, or set it back in the CSV"
            )
        if self.order_by is not None:
            names = projection.table.names
            if self._order(projection)[0] is None:
                raise ValueError(f"order_by: {source} has no column {self.order_by!r}; it has {', '.join(names)}")

    def _order(self, projection: Projection) -> tuple[int | None, bool]:
        """Return the column that says the order, or None, and whether the greatest come first."""
        table = projection.table
        name = self.order_by or ""
        index = table.index_of(name)
        if index is not None or not name.startswith("-"):
            return index, False
        return table.index_of(name[1:]), True

    def of_pending(self, projection: Projection, done: Collection[str] | str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return all pending POs in the order of the CSV, and those of them that are chosen, in their order.

        Returns:
            Twice the columns `row`, `key` and `status`. `limit` is not applied: what a run has begun counts there. In
            the order of the CSV, too, when the column that says another one is gone meanwhile.
        """
        pending = work_of(projection.table, done).filter(~pl.col("done")).select("row", "key", "status")
        chosen = pending
        if self.only is not None:
            chosen = chosen.filter(pl.col("key").is_in(list(self.only)))
        if self.status is not None:
            chosen = chosen.filter(pl.col("status").str.to_uppercase().is_in(list(self.status)))
        if self.order_by is not None:
            chosen = self._sorted(chosen, projection)
        return pending, chosen

    def _sorted(self, chosen: pl.DataFrame, projection: Projection) -> pl.DataFrame:
        column, descending = self._order(projection)
        if column is None:
            return chosen
        text = projection.table.texts(column).gather(chosen.get_column("row")).str.strip_chars(BLANKS)
        number = pl.col("text").str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
        order = pl.DataFrame({"text": text}).select(
            is_empty=pl.col("text") == "",
            is_text=~pl.col("text").str.contains(_NUMBER),
            number=pl.when(pl.col("text").str.contains(_NUMBER)).then(number),
            text=pl.col("text").str.to_lowercase(),
        )
        by = ["is_empty", "is_text", "number", "text"]
        turned = [False, False, descending, descending]
        sorted_ = chosen.hstack(order.rename({name: f"by {name}" for name in by}))
        return sorted_.sort(
            [f"by {name}" for name in by], descending=turned, maintain_order=True, nulls_last=True
        ).drop([f"by {name}" for name in by])
