"""Parts: what one unit of work leaves behind, immutable, whole or not there.

    OUTPUT/parts/heads/<unit>/full,0-4.parquet    heads and predictions of these runs
    OUTPUT/parts/features/<unit>.parquet          features on some evaluation samples
    OUTPUT/parts/choices/<unit>.parquet           the candidates of a search, and which was chosen
    OUTPUT/parts/pairs/<tile>.parquet
    OUTPUT/parts/failures/<unit>.json             the error of a unit that failed
    OUTPUT/parts/timings/<unit>....json           apart, so that equal work gives equal bytes

A run is a seed, or None for the full training split. Finished means that a whole part exists: one
whose digest is right (see ``sealing``). A damaged part is as good as none, and is written anew.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from td_ray.errors import InputError, MachineError, error_text
from td_ray.files import fingerprint
from td_ray.results.sealing import Seal, seal_of, sealed, unsealed
from td_ray.storage import Folder, Stamp

Run = int | None
FULL = "full"
HEADS, TIMINGS = "parts/heads", "parts/timings"
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
    """The parts of one output folder.

    Attributes:
        damaged: names of parts that were found not to be whole.
    """

    def __init__(self, output: Folder) -> None:
        self.output = output
        self.damaged: set[str] = set()
        self._listed: dict[str, Stamp] | None = None
        self._heads_listed: defaultdict[str, list[str]] = defaultdict(list)
        self._seals: dict[str, tuple[Stamp, Seal | None]] = {}

    def look(self) -> None:
        """List and check all parts at once; what comes later is not seen until the next look.

        Without a look each part is looked for when it is asked for, which workers do.
        """
        self._listed = self.output.stamps("parts")
        new = [
            name
            for name, stamp in self._listed.items()
            if name.endswith(".parquet") and self._seals.get(name, (None,))[0] != stamp
        ]
        for name, content in self.output.read_many(new):
            self._check(name, self._listed[name], content)
        self._heads_listed = defaultdict(list)
        for name in sorted(self._listed):
            if name.startswith(HEADS):
                self._heads_listed[name.rpartition("/")[0]].append(name)

    def remove_damaged(self) -> list[str]:
        """Remove damaged parts, so that nothing is read but what is whole; returns them."""
        names = sorted(self.damaged)
        for name in names:
            self.output.remove(name)
        self.damaged.clear()
        return [self.output.shown(name) for name in names]

    def head_files(self, unit: str) -> dict[Run, str]:
        """The names of a unit's whole parts, by run.

        Raises:
            InputError: two parts hold the same run, or one is another unit's.
        """
        found: dict[Run, str] = {}
        for name in self._files_of_heads(unit):
            seal = self._seal(name, unit)
            for run in runs_of_name(seal.runs) if seal is not None else []:
                if run in found:
                    one, other = self.output.shown(found[run]), self.output.shown(name)
                    raise InputError(
                        f"{one} and {other} hold the same run of one unit; remove one of them"
                    )
                found[run] = name
        return found

    def _files_of_heads(self, unit: str) -> list[str]:
        under = f"{HEADS}/{unit}"
        if self._listed is None:
            return sorted(self.output.stamps(under))
        return self._heads_listed[under]

    def has_heads(self, unit: str, runs: Iterable[Run]) -> bool:
        """Whether a unit has whole parts with all these runs."""
        return set(runs) <= set(self.head_files(unit))

    def write_heads(self, unit: str, runs: Sequence[Run], table: pa.Table) -> None:
        """Write the heads of some runs of a unit."""
        name = name_of_runs(runs)
        file = name if len(name) <= LONGEST_NAME else f"runs-{fingerprint(name)}"
        self.output.write(f"{HEADS}/{unit}/{file}.parquet", sealed(table, unit, name))

    def read_heads(self, unit: str, columns: list[str] | None = None) -> pa.Table:
        """Read all runs of a unit that has parts."""
        names = self._files_of_heads(unit)
        return pa.concat_tables([self._read(name, unit, columns) for name in names])

    def heads_of(self, unit: str) -> str:
        """Where the parts of a unit are, for people."""
        return self.output.shown(f"{HEADS}/{unit}")

    def has_features(self, unit: str) -> bool:
        """Whether a unit of features has a whole part."""
        return self._is_there(_features(unit), unit)

    def write_features(self, unit: str, table: pa.Table) -> None:
        """Write a unit of features."""
        self.output.write(_features(unit), sealed(table, unit))

    def read_features(self, unit: str) -> pa.Table:
        """Read a unit of features."""
        return self._read(_features(unit), unit)

    def has_choice(self, unit: str) -> bool:
        """Whether a unit has chosen among its candidates."""
        return self._is_there(_choice(unit), unit)

    def write_choice(self, unit: str, table: pa.Table) -> None:
        """Write the candidates of a unit's search."""
        self.output.write(_choice(unit), sealed(table, unit))

    def read_choice(self, unit: str) -> pa.Table:
        """Read the candidates of a unit's search."""
        return self._read(_choice(unit), unit)

    def has_pairs(self, tile: str) -> bool:
        """Whether a tile has a whole part."""
        return self._is_there(_pairs(tile), tile)

    def write_pairs(self, tile: str, table: pa.Table) -> None:
        """Write the pairs of a tile."""
        self.output.write(_pairs(tile), sealed(table, tile))

    def read_pairs(self, tile: str) -> pa.Table:
        """Read the pairs of a tile."""
        return self._read(_pairs(tile), tile)

    def failure(self, unit: str) -> dict[str, Any] | None:
        """What is recorded of a unit that failed."""
        if self._listed is not None and _failure(unit) not in self._listed:
            return None
        try:
            record: dict[str, Any] = json.loads(self.output.read(_failure(unit)))
        except (OSError, ValueError):
            return None
        return record

    def write_failure(self, unit: str, stage: str, error: BaseException) -> None:
        """Record that a unit failed, with the error's text."""
        self._write_json(_failure(unit), {"stage": stage, "error": error_text(error)})

    def clear_failure(self, unit: str) -> None:
        """Forget a failure, so that the unit is tried again."""
        self.output.remove(_failure(unit))

    def write_timing(self, unit: str, stage: str, seconds: float, host: str) -> None:
        """Record how long one attempt at a unit took."""
        record = {"unit": unit, "stage": stage, "seconds": seconds, "host": host}
        self._write_json(f"{TIMINGS}/{fingerprint([record])}.json", record)

    def timings(self) -> Iterable[dict[str, Any]]:
        """All recorded timings."""
        for _, content in self.output.read_many(sorted(self.output.stamps(TIMINGS))):
            if content is not None:
                yield json.loads(content)

    def _write_json(self, name: str, record: dict[str, Any]) -> None:
        self.output.write(name, (json.dumps(record, sort_keys=True, indent=1) + "\n").encode())

    def _is_there(self, name: str, unit: str) -> bool:
        return self._seal(name, unit) is not None

    def _seal(self, name: str, unit: str) -> Seal | None:
        """The seal of a whole part of a unit; None where there is none.

        Raises:
            InputError: it is another unit's.
        """
        seal = self._listed_seal(name) if self._listed is not None else self._present_seal(name)
        if seal is not None and seal.unit != unit:
            raise InputError(
                f"{self.output.shown(name)} is a part of another unit ({seal.unit}); remove it"
            )
        return seal

    def _listed_seal(self, name: str) -> Seal | None:
        return self._seals[name][1] if name in (self._listed or {}) else None

    def _present_seal(self, name: str) -> Seal | None:
        stamp = self.output.stamp(name)
        if stamp is None:
            return None
        if self._seals.get(name, (None,))[0] != stamp:
            for _, content in self.output.read_many([name]):
                self._check(name, stamp, content)
        return self._seals[name][1]

    def _check(self, name: str, stamp: Stamp, content: bytes | None) -> None:
        seal = None if content is None else seal_of(content)
        self._seals[name] = stamp, seal
        self.damaged.discard(name)
        if content is not None and seal is None:
            self.damaged.add(name)

    def _read(self, name: str, unit: str, columns: list[str] | None = None) -> pa.Table:
        content = self.output.read(name)
        seal = seal_of(content)
        if seal is None or seal.unit != unit:
            raise MachineError(
                f"{self.output.shown(name)} was damaged under way; the next run writes it anew"
            )
        return unsealed(content, columns)


def _features(unit: str) -> str:
    return f"parts/features/{unit}.parquet"


def _choice(unit: str) -> str:
    return f"parts/choices/{unit}.parquet"


def _pairs(tile: str) -> str:
    return f"parts/pairs/{tile}.parquet"


def _failure(unit: str) -> str:
    return f"parts/failures/{unit}.json"
