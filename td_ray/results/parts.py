"""Parts: what one unit of work leaves behind, immutable, whole or not there.

    OUTPUT/parts/heads/<unit>/full,0-4.parquet    heads and predictions of these runs
    OUTPUT/parts/features/<unit>.parquet          features on some evaluation samples
    OUTPUT/parts/choices/<unit>.parquet           the candidates of a search, and which was chosen
    OUTPUT/parts/pairs/<tile>.parquet
    OUTPUT/parts/failures/<unit>.json             the error of a unit that failed
    OUTPUT/parts/timings/<unit>....json           apart, so that equal work gives equal bytes

A run is a seed, or None for the full training split. Finished means that a valid part exists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from td_ray.errors import RunError, error_text
from td_ray.files import atomic, fingerprint, write_json

Run = int | None
Footer = Any  # pyarrow.parquet.FileMetaData, which has no types
FULL = "full"
LONGEST_NAME = 100  # of a file; longer ones get a fingerprint, and the runs are inside


def name_of_runs(runs: Sequence[Run]) -> str:
    """``full,0-4,7`` for None, 0, 1, 2, 3, 4 and 7."""
    words = [FULL] if None in runs else []
    seeds = sorted(run for run in runs if run is not None)
    start = 0
    for end in range(1, len(seeds) + 1):
        if end == len(seeds) or seeds[end] != seeds[end - 1] + 1:
            first, last = seeds[start], seeds[end - 1]
            words.append(str(first) if first == last else f"{first}-{last}")
            start = end
    return ",".join(words)


def runs_of_name(name: str) -> list[Run]:
    """The reverse of ``name_of_runs``.

    Raises:
        ValueError: not such a name.
    """
    runs: list[Run] = []
    for word in name.split(","):
        if word == FULL:
            runs.append(None)
        else:
            first, _, last = word.partition("-")
            runs.extend(range(int(first), int(last or first) + 1))
    return runs


class Parts:
    """The parts of one output folder."""

    def __init__(self, output: Path) -> None:
        self.root = output / "parts"

    def head_files(self, unit: str) -> dict[Run, Path]:
        """The valid parts of a unit by run.

        Raises:
            RunError: two parts hold the same run.
        """
        found: dict[Run, Path] = {}
        for path, footer in self._head_parts(unit):
            for run in runs_of_name(footer.metadata[b"runs"].decode()):
                if run in found:
                    raise RunError(
                        f"{found[run]} and {path} hold the same run of one unit; remove one of them"
                    )
                found[run] = path
        return found

    def _head_parts(self, unit: str) -> Iterator[tuple[Path, Footer]]:
        for path in sorted((self.root / "heads" / unit).glob("[!.]*.parquet")):
            footer = _valid_footer(path, unit)
            if footer is not None:  # else a part written anew takes its place
                yield path, footer

    def has_heads(self, unit: str, runs: Iterable[Run]) -> bool:
        """Whether a unit has valid parts with all these runs."""
        return set(runs) <= set(self.head_files(unit))

    def write_heads(self, unit: str, runs: Sequence[Run], table: pa.Table) -> None:
        """Write the heads of some runs of a unit."""
        name = name_of_runs(runs)
        file = name if len(name) <= LONGEST_NAME else f"runs-{fingerprint(name)}"
        _write(self.root / "heads" / unit / f"{file}.parquet", table, unit, name)

    def read_heads(self, unit: str, columns: list[str] | None = None) -> pa.Table:
        """Read all runs of a unit that has parts."""
        return pa.concat_tables(
            [_read(path, columns, footer) for path, footer in self._head_parts(unit)]
        )

    def has_features(self, unit: str) -> bool:
        """Whether a unit of features has a valid part."""
        return _is_valid(self._features(unit), unit)

    def write_features(self, unit: str, table: pa.Table) -> None:
        """Write a unit of features."""
        _write(self._features(unit), table, unit)

    def read_features(self, unit: str) -> pa.Table:
        """Read a unit of features."""
        return _read(self._features(unit))

    def has_choice(self, unit: str) -> bool:
        """Whether a unit has chosen among its candidates."""
        return _is_valid(self._choice(unit), unit)

    def write_choice(self, unit: str, table: pa.Table) -> None:
        """Write the candidates of a unit's search."""
        _write(self._choice(unit), table, unit)

    def read_choice(self, unit: str) -> pa.Table:
        """Read the candidates of a unit's search."""
        return _read(self._choice(unit))

    def has_pairs(self, tile: str) -> bool:
        """Whether a tile has a valid part."""
        return _is_valid(self._pairs(tile), tile)

    def write_pairs(self, tile: str, table: pa.Table) -> None:
        """Write the pairs of a tile."""
        _write(self._pairs(tile), table, tile)

    def read_pairs(self, tile: str) -> pa.Table:
        """Read the pairs of a tile."""
        return _read(self._pairs(tile))

    def failure(self, unit: str) -> dict[str, Any] | None:
        """What is recorded of a unit that failed."""
        try:
            record: dict[str, Any] = json.loads(self._failure(unit).read_text())
        except (OSError, ValueError):
            return None
        return record

    def write_failure(self, unit: str, stage: str, error: BaseException) -> None:
        """Record that a unit failed, with the error's text."""
        write_json(self._failure(unit), {"stage": stage, "error": error_text(error)})

    def clear_failure(self, unit: str) -> None:
        """Forget a failure, so that the unit is tried again."""
        self._failure(unit).unlink(missing_ok=True)

    def write_timing(self, unit: str, stage: str, seconds: float, host: str) -> None:
        """Record how long one attempt at a unit took."""
        record = {"unit": unit, "stage": stage, "seconds": seconds, "host": host}
        write_json(self.root / "timings" / f"{fingerprint([record])}.json", record)

    def timings(self) -> Iterable[dict[str, Any]]:
        """All recorded timings."""
        for path in sorted((self.root / "timings").glob("[!.]*.json")):
            yield json.loads(path.read_text())

    def _features(self, unit: str) -> Path:
        return self.root / "features" / f"{unit}.parquet"

    def _choice(self, unit: str) -> Path:
        return self.root / "choices" / f"{unit}.parquet"

    def _pairs(self, tile: str) -> Path:
        return self.root / "pairs" / f"{tile}.parquet"

    def _failure(self, unit: str) -> Path:
        return self.root / "failures" / f"{unit}.json"


def _write(path: Path, table: pa.Table, unit: str, runs: str = "") -> None:
    metadata = {"unit": unit, "rows": str(table.num_rows), "runs": runs}
    with atomic(path) as temporary:
        parquet.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def _read(path: Path, columns: list[str] | None = None, footer: Footer | None = None) -> pa.Table:
    """Read a part: a small file, which threads would only slow down."""
    with parquet.ParquetFile(path, metadata=footer) as file:
        return file.read(columns=columns, use_threads=False)


def _is_valid(path: Path, unit: str) -> bool:
    return path.is_file() and _valid_footer(path, unit) is not None


def _valid_footer(path: Path, unit: str) -> Footer | None:
    """The footer of a part that is whole and of this unit, else None."""
    try:
        footer = parquet.read_metadata(path)
    except (OSError, ValueError):
        return None
    metadata: dict[bytes, bytes] = footer.metadata or {}
    rows = str(footer.num_rows).encode()
    is_it = metadata.get(b"unit") == unit.encode() and metadata.get(b"rows") == rows
    return footer if is_it and b"runs" in metadata else None
