"""What a data source gives: samples with stable ids, columns, a split, and inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.files import Digest, fingerprint
from td_ray.needs import Needed
from td_ray.registry import closest
from td_ray.spec import DataEntry, Experiment
from td_ray.tasks import splits
from td_ray.tasks.inputs import ChosenInputs, Inputs
from td_ray.tasks.text import as_text

FEATURE_EXAMPLES = 2000
"""On which measures of features compare: enough for them, and a small part of most features."""


@dataclass(frozen=True)
class Samples:
    """What a data source reads, before the split is drawn.

    Attributes:
        ids: (n,) distinct strings.
        columns: named arrays of n values each; text may be objects.
        inputs: opens what models take, or None where there is nothing. It is pickled to where
            models run: a function or a ``functools.partial``, with paths and not with data.
    """

    ids: NDArray[np.str_]
    columns: Mapping[str, NDArray[Any]]
    inputs: Callable[[], Inputs] | None = None


@dataclass(frozen=True, eq=False)  # one is itself alone, so that caches may have it as a key
class DataSet:
    """Samples with their split. Rows keep the order of the source.

    Attributes:
        training: (n,) bool, rows of the training split.
        evaluation: (n,) bool, rows of the evaluation split; disjoint from ``training``.
        strata: (n,) labels, as text, by which splits and halves are stratified, or None.
        groups: (n,) values, as text, whose samples stay together, or None.
        folder: where the source's relative paths start.
        left_out: how many samples were, since not all models have them; files of models may hold
            others then. None where they must hold the same ids.
    """

    name: str
    samples: Samples
    training: NDArray[np.bool_]
    evaluation: NDArray[np.bool_]
    strata: NDArray[np.str_] | None
    source: DataSource
    groups: NDArray[np.str_] | None = None
    folder: Path = Path()
    left_out: int | None = None

    @property
    def ids(self) -> NDArray[np.str_]:
        """(n,) sample ids."""
        return self.samples.ids

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.samples.ids)

    @property
    def evaluation_ids(self) -> NDArray[np.str_]:
        """Ids of the evaluation split, in row order: the order of stored predictions."""
        return self.ids[self.evaluation]

    def shared(self, rows: NDArray[np.bool_]) -> DataSet:
        """The samples that all models have, (n,) bool; each stays on its side of the split."""
        return replace(
            self,
            samples=_some(self.samples, np.flatnonzero(rows)),
            training=self.training[rows],
            evaluation=self.evaluation[rows],
            strata=None if self.strata is None else self.strata[rows],
            groups=None if self.groups is None else self.groups[rows],
            left_out=int((~rows).sum()),
        )

    def column(self, name: str, wanted_by: str) -> NDArray[Any]:
        """Return a column.

        Raises:
            InputError: there is none of that name, or it has more than one value per sample.
        """
        if name not in self.samples.columns:
            raise InputError(
                f"{wanted_by}: data set '{self.name}' has no column '{name}': "
                f"{closest(name, self.samples.columns)}"
            )
        values = self.samples.columns[name]
        if values.ndim != 1:
            raise InputError(
                f"{wanted_by}: column '{name}' of data set '{self.name}' has shape "
                f"{values.shape}; a target is one value per sample"
            )
        return values

    @cached_property
    def ids_digest(self) -> str:
        """Identity of the ids and their order."""
        return fingerprint(self.ids.tolist())

    @cached_property
    def split_digest(self) -> str:
        """Identity of all that halves depend on, whatever its order: ids, split, strata, groups."""
        split = np.where(self.training, "training", np.where(self.evaluation, "evaluation", ""))
        strata = np.zeros(self.n, dtype=str) if self.strata is None else self.strata
        facts = [self.ids, split, strata, *([] if self.groups is None else [self.groups])]
        return fingerprint(sorted(zip(*(each.tolist() for each in facts), strict=True)))

    @cached_property
    def validation(self) -> NDArray[np.bool_]:
        """(n_train,) rows of the training split on which what is chosen is compared."""
        ids, strata, groups = self._training_samples()
        return splits.validation_part(ids, strata, self.split_digest, groups)

    @cached_property
    def _drawn_halves(self) -> dict[int, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        """By seed; all tasks and models share them."""
        return {}

    def halves(self, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Two complementary halves of the training split, each (n_train,) rows.

        Raises:
            InputError: the training split is a single group.
        """
        ids, strata, groups = self._training_samples()
        if groups is not None and (groups == groups[0]).all():
            raise InputError(
                f"data set '{self.name}': the training split is a single group, '{groups[0]}', and "
                "has no halves; use finer 'groups', or seeds: 0 for no noise floor"
            )
        if seed not in self._drawn_halves:
            drawn = splits.halves(ids, strata, self.split_digest, seed, groups)
            self._drawn_halves[seed] = drawn
        return self._drawn_halves[seed]

    def _training_samples(
        self,
    ) -> tuple[NDArray[np.str_], NDArray[np.str_] | None, NDArray[np.str_] | None]:
        """Ids, strata and groups of the training split."""
        rows = self.training
        strata = None if self.strata is None else self.strata[rows]
        return self.ids[rows], strata, None if self.groups is None else self.groups[rows]

    @cached_property
    def evaluation_digest(self) -> str:
        """Identity of the evaluation split's ids and their order, which predictions follow."""
        return fingerprint(self.evaluation_ids.tolist())

    @cached_property
    def queue(self) -> NDArray[np.uint64]:
        """(n_evaluation,) keys of the evaluation split, from which all tasks draw alike."""
        return splits.queue(self.evaluation_ids)

    @cached_property
    def drawn(self) -> NDArray[np.intp]:
        """Rows of the evaluation samples on which features are compared, in the order drawn.

        There are `FEATURE_EXAMPLES` of them, or as many as there are; fewer are the first of them.
        """
        order = np.argsort(self.queue, kind="stable")[:FEATURE_EXAMPLES]
        return np.asarray(np.flatnonzero(self.evaluation)[order])

    def __getstate__(self) -> dict[str, Any]:
        """All but inputs that were opened: workers open their own."""
        return {name: value for name, value in self.__dict__.items() if name != "inputs"}

    def inputs_identity(self, digest: Digest) -> Any:
        """See ``DataSource``; looked up once for all models, since folders may hold many files."""
        return _inputs_identity(self, digest)

    def require_inputs(self) -> Callable[[], Inputs]:
        """Return what reads the inputs.

        Raises:
            InputError: the source has none.
        """
        if self.samples.inputs is None:
            raise InputError(
                f"data set '{self.name}' has labels but no inputs, and a model needs them: "
                "give 'inputs', or use feature arrays"
            )
        return self.samples.inputs

    @cached_property
    def inputs(self) -> Inputs:
        """What models take, one per sample; slices of it are blocks.

        Raises:
            InputError: the source has no inputs, or not one per sample.
        """
        inputs = self.require_inputs()()
        if len(inputs) != self.n:
            raise InputError(
                f"data set '{self.name}': {len(inputs)} inputs for {self.n} samples; "
                "both must have one row per sample"
            )
        return inputs


@lru_cache(maxsize=64)
def _inputs_identity(data: DataSet, digest: Digest) -> Any:
    return data.source.inputs_identity(data.folder, digest)


def _some(samples: Samples, rows: NDArray[np.intp]) -> Samples:
    columns = {name: values[rows] for name, values in samples.columns.items()}
    inputs = None if samples.inputs is None else partial(_chosen, samples.inputs, rows)
    return Samples(samples.ids[rows], columns, inputs)


def _chosen(inputs: Callable[[], Inputs], rows: NDArray[np.intp]) -> Inputs:
    return ChosenInputs(inputs(), rows)


class DataSource(DataEntry, ABC):
    """Base of all data sources: options as fields, and how to read them."""

    @abstractmethod
    def read(self, folder: Path, cache: Path) -> Samples:
        """Read ids and columns; cheap, since planning does it. Inputs are read when called."""

    @abstractmethod
    def inputs_identity(self, folder: Path, digest: Digest) -> Any:
        """JSON that changes when the inputs do; None where a digest is not known yet."""

    def needed(self, folder: Path) -> Sequence[Needed]:
        """What must be on the machine and can be downloaded.

        Raises:
            InputError: what is asked for is not pinned, or needs a library that is not there.
        """
        return []

    def load(self, folder: Path, cache: Path) -> DataSet:
        """Read the samples, draw the subset if one is asked for, and the split.

        Raises:
            InputError: ids that are not distinct, columns of other lengths, an empty split, a
                group that a given split cuts, a subset of more samples than there are.
        """
        samples = self.read(folder, cache)
        self._check(samples)
        if self.subset is not None:
            samples = self._drawn(samples, self.subset)
        strata = groups = None
        if self.stratify is not None:
            strata = self._words(samples, self.stratify, "stratify")
        if self.groups is not None:
            groups = self._words(samples, self.groups, "group")
            if (groups == "").any():
                first = samples.ids[groups == ""][0]
                raise InputError(
                    f"data set '{self.name}': sample '{first}' has no group in column "
                    f"'{self.groups}'; fill it (a group of its own, say), or drop the sample"
                )
        training, evaluation = splits.cut(
            samples.ids, samples.columns, strata, self.split, self.name, groups
        )
        return DataSet(self.name, samples, training, evaluation, strata, self, groups, folder)

    def _drawn(self, samples: Samples, size: int) -> Samples:
        """A subset that keeps the shares of the strata, and of a split that a column gives."""
        n = len(samples.ids)
        if size > n:
            raise InputError(
                f"data set '{self.name}': a subset of {size} samples is asked for, "
                f"and there are {n}"
            )
        strata = None if self.stratify is None else self._words(samples, self.stratify, "stratify")
        if self.split.column is not None:
            words = splits.split_words(samples.columns, self.split.column, self.name)
            labels = np.zeros(n, dtype=str) if strata is None else strata
            pairs = [
                f"{len(word)}:{word}{label}" for word, label in zip(words, labels, strict=True)
            ]
            strata = np.array(pairs)
        rows = np.flatnonzero(splits.subset(samples.ids, strata, size, self.split.seed))
        return _some(samples, rows)

    def _words(self, samples: Samples, name: str, verb: str) -> NDArray[np.str_]:
        """A column to stratify or group by, as text."""
        if name not in samples.columns:
            raise InputError(
                f"data set '{self.name}': no column '{name}' to {verb} by: "
                f"{closest(name, samples.columns)}"
            )
        try:
            return as_text(samples.columns[name])
        except ValueError as error:
            raise InputError(
                f"data set '{self.name}': {verb} by a column of labels; '{name}' {error}"
            ) from None

    def _check(self, samples: Samples) -> None:
        where, n = f"data set '{self.name}'", len(samples.ids)
        if (samples.ids == "").any():
            row = int(np.flatnonzero(samples.ids == "")[0])
            raise InputError(f"{where}: row {row} (counted from 0) has no sample id")
        distinct, counts = np.unique(samples.ids, return_counts=True)
        if len(distinct) < n:
            twice = distinct[counts > 1][0]
            raise InputError(f"{where}: the sample id '{twice}' is there twice")
        for name, values in samples.columns.items():
            if values.ndim == 0 or len(values) != n:
                found = "a single value" if values.ndim == 0 else f"{len(values)} values"
                raise InputError(f"{where}: column '{name}' has {found} for {n} sample ids")


def used_sources(experiment: Experiment) -> list[DataSource]:
    """The data sources that some task uses, in the order of the file."""
    used = {name for task in experiment.tasks for name in (task.data, *task.evaluated_on)}
    return [cast(DataSource, entry) for entry in experiment.data if entry.name in used]
