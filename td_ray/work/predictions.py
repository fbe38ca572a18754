"""Read what the heads of many models predict, for the pairs of a tile."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from td_ray.errors import WorkError
from td_ray.measures import Examples, Outputs
from td_ray.memory import default_memory
from td_ray.plan.tiles import COPIES, Member
from td_ray.results.parts import Parts, Run
from td_ray.work.kept_features import PreparedFeatures

HELD_BYTES = 2**27
"""Of predictions that a reader keeps for its next tiles."""
FEW = 3

Head = tuple[NDArray[Any], NDArray[np.float32] | None]
Heads = dict[tuple[Run, str | None], Head]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The outputs of M models, over R seeds.

    Attributes:
        full: of heads on the full training split.
        seeded: (M,) bool, False for stored predictions without halves.
        halves_a, halves_b: by seed, of the seeded ones; none where there are none.
        floors: (M,) noise floors by measure and distance, once they are known.
    """

    full: Outputs
    seeded: NDArray[np.bool_]
    halves_a: tuple[Outputs, ...]
    halves_b: tuple[Outputs, ...]
    floors: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What they take, with what is made of them."""
        outputs = (self.full, *self.halves_a, *self.halves_b)
        probabilities = sum(x.probabilities.nbytes for x in outputs if x.probabilities is not None)
        return probabilities + COPIES * sum(x.predicted.nbytes for x in outputs)


class Reader:
    """Reads predictions, and keeps those that were used last: a tile shares them with others.

    Attributes:
        prepared: the same of kept features, for measures of them; of ``memory``, half.
    """

    def __init__(self, parts: Parts, seeds: Sequence[int], memory: int | None = None) -> None:
        self.parts, self.seeds = parts, seeds
        self.prepared = PreparedFeatures(parts, (memory or default_memory()) // 2)
        self._held: OrderedDict[tuple[tuple[Member, ...], str, bool], Predictions] = OrderedDict()

    def read(
        self,
        members: tuple[Member, ...],
        data: str,
        examples: Examples,
        *,
        needs: Collection[str] = (),
        who: str = "",
    ) -> Predictions:
        """Read the predictions of members on a data set.

        Args:
            examples: those of the members' task on this data set.
            needs: what a measure needs beside predictions, "probabilities".
            who: the name of that measure, for errors.

        Raises:
            WorkError: a member that was evaluated on other samples, or has no probabilities.
        """
        key = (members, data, "probabilities" in needs)
        if key not in self._held:
            self._held[key] = self._read(members, data, examples, who if key[2] else "")
        self._held.move_to_end(key)
        while len(self._held) > 2 and sum(each.bytes for each in self._held.values()) > HELD_BYTES:
            self._held.popitem(last=False)
        return self._held[key]

    def training(self, member: Member) -> tuple[NDArray[Any], float]:
        """What a member's exact head on the full split predicts on it, and the head's penalty.

        Raises:
            WorkError: this was not written down.
        """
        names = ["seed", "encoding", "train_predictions", "penalty"]
        for row in self.parts.read_heads(member.unit, names).to_pylist():
            if row["seed"] is None and row["train_predictions"] is not None:
                is_codes = row["encoding"].startswith("uint")
                encoding = row["encoding"] if is_codes else "float64"
                return _decode(row["train_predictions"], encoding), float(row["penalty"])
        folder = self.parts.heads_of(member.unit)
        raise WorkError(
            f"the heads in {folder} lack their predictions on the training split; remove that "
            "folder and run again, to have them fitted anew"
        )

    def _read(
        self, members: Sequence[Member], data: str, examples: Examples, needed_by: str
    ) -> Predictions:
        found = [self._heads(member, data, examples, needed_by) for member in members]
        seeded = [heads for heads in found if len(heads) > 1]
        whole = examples.whole
        halves_a, halves_b = (
            tuple(
                _outputs([heads[seed, half] for heads in seeded], whole)
                for seed in (self.seeds if seeded else ())
            )
            for half in "ab"
        )
        full = _outputs([heads[None, None] for heads in found], examples)
        return Predictions(full, np.array([len(heads) > 1 for heads in found]), halves_a, halves_b)

    def _heads(self, member: Member, data: str, examples: Examples, needed_by: str) -> Heads:
        """All heads of a member that predict a data set."""
        names = ["data", "seed", "half", "encoding", "predictions", "ids_digest"]
        names += ["probabilities"] if needed_by else []
        table = self.parts.read_heads(member.unit, names)
        heads: Heads = {}
        for row in table.filter(pa.compute.equal(table["data"], data)).to_pylist():
            if row["ids_digest"] != examples.digest:
                raise WorkError(self._other_samples(member, data, row["ids_digest"], examples))
            probabilities = None
            if needed_by:
                probabilities = self._probabilities(member, row["probabilities"], needed_by)
                probabilities = probabilities.reshape(-1, examples.n_classes)
            predicted = _decode(row["predictions"], row["encoding"])
            if examples.chosen is not None:
                predicted = predicted[examples.chosen]
                probabilities = None if probabilities is None else probabilities[examples.chosen]
            heads[row["seed"], row["half"]] = predicted, probabilities
        return heads

    def _probabilities(
        self, member: Member, stored: bytes | None, needed_by: str
    ) -> NDArray[np.float32]:
        if stored is None:
            folder = self.parts.heads_of(member.unit)
            raise WorkError(
                f"measure '{needed_by}' needs probabilities, and the heads in {folder} have none; "
                "leave out the measure or the model, or remove that folder to have them fitted anew"
            )
        return np.frombuffer(stored, dtype="<f4")

    def _other_samples(self, member: Member, data: str, found: str, examples: Examples) -> str:
        """Which samples differ, as far as the tables of the last run tell."""
        folder = self.parts.heads_of(member.unit)
        ids = [self._ids(data, digest) for digest in (found, examples.digest)]
        parts = [
            f"{len(some)} {what} (such as {', '.join(map(repr, some[:FEW]))})"
            for some, what in (
                (sorted(ids[0] - ids[1]), "that the task has no more"),
                (sorted(ids[1] - ids[0]), "of the task that they lack"),
            )
            if ids[0] and ids[1] and some
        ]
        return (
            f"the heads in {folder} were evaluated on other samples of '{data}' than the task has"
            + (": " + ", ".join(parts) if parts else "")
            + "; remove that folder and run again, to have them fitted anew"
        )

    def _ids(self, data: str, digest: str) -> set[str]:
        """Ids that a digest stands for; none where no table tells."""
        output, name = self.parts.output, "results/samples/samples.parquet"
        if output.stamp(name) is None:
            return set()
        filters = [("data", "==", data), ("ids_digest", "==", digest)]
        table = parquet.read_table(
            output.path(name), columns=["id"], filters=filters, filesystem=output.filesystem
        )
        return set(table["id"].to_pylist())


def _decode(stored: bytes, encoding: str) -> NDArray[Any]:
    array: NDArray[Any] = np.frombuffer(stored, dtype=np.dtype(encoding).newbyteorder("<"))
    # small distances between values are differences of nearly equal numbers
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _outputs(heads: Sequence[Head], examples: Examples) -> Outputs:
    """Heads on the same examples, stacked."""
    predicted = np.stack([each for each, _ in heads])
    given = [each for _, each in heads if each is not None]
    return Outputs(predicted, examples, np.stack(given) if given else None)
