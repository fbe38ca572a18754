"""What every measure of features declares, and how it is found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.measures.features.matrices import eps_of
from td_ray.registry import MEASURES, closest, split_options

SIMILAR, DIFFERENT = "higher is more similar", "higher is more different"

State = TypeVar("State")


@dataclass(frozen=True)
class FeatureMeasure(ABC, Generic[State]):
    """A measure of features and how to read it; the fields of a measure are its options.

    Attributes:
        name: under which it is registered.
        direction: "higher is more different" or "higher is more similar".
        range: smallest and largest possible value.
        squared: whether it is a squared distance, so that its square root is the metric.
        source: of its formula.
    """

    name: ClassVar[str]
    direction: ClassVar[str]
    range: ClassVar[tuple[float, float]]
    squared: ClassVar[bool] = False
    source: ClassVar[str]

    @property
    def options(self) -> dict[str, Any]:
        """Its options by name."""
        return asdict(self)

    @property
    def least_rows(self) -> int:
        """The fewest examples that it can compare."""
        return 2

    @property
    def itself(self) -> float | None:
        """Its value between equal features; None where that depends on them."""
        return self.range[1] if self.direction == SIMILAR else 0.0

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """The same measure with other options.

        Raises:
            InputError: no such option, or a value that it cannot have.
        """
        known = [field.name for field in fields(self)]
        for option in options:
            if option not in known:
                hint = closest(option, known) if known else "it has none"
                raise InputError(f"measure '{self.name}' has no option '{option}': {hint}")
        return replace(self, **options)

    def prepare(self, features: NDArray[Any], eps: float | None = None) -> State:
        """Do what is done once for each model.

        Args:
            features: (n, d) finite numbers.
            eps: relative precision of the numbers, where it is not that of their type. Type is
                all that is known by default: features made in float32 and stored as float16 are
                judged by the eps of float16, those made in bfloat16 and stored as float32 by that
                of float32.

        Raises:
            InputError: too few rows, or features that it cannot compare, such as constants.
        """
        given = np.asarray(features)
        matrix = np.asarray(given, dtype=np.float64)
        if len(matrix) < self.least_rows:
            raise InputError(
                f"measure '{self.name}' needs at least {self.least_rows} rows, "
                f"and there are {len(matrix)}"
            )
        return self._prepare(matrix, eps_of(given.dtype) if eps is None else eps)

    def compare(self, a: Sequence[State], b: Sequence[State]) -> NDArray[np.float64]:
        """Compare every model of one list with every model of another.

        Args:
            a: A models, prepared, on the same n examples.
            b: B models; if it is the same list, half of the pairs is computed.

        Returns:
            (A, B) float64 in the range of the measure.
        """
        return np.clip(self._compare(a, b), *self.range)

    def check_number(self, option: str, least: float, *, included: bool) -> None:
        """Make an option a float; refuse one that is no finite number from a least one on."""
        value = getattr(self, option)
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not (is_number and least <= value < np.inf and (included or value > least)):
            bound = f"{'at least' if included else 'greater than'} {least:g}"
            raise self.wrong(option, f"a number {bound}")
        object.__setattr__(self, option, float(value))  # numpy's numbers have their own precision

    def check_count(self, option: str) -> None:
        """Make an option an int; refuse one that is no whole number from 1 on."""
        value = getattr(self, option)
        if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < 1:
            raise self.wrong(option, "a whole number from 1 on")
        object.__setattr__(self, option, int(value))

    def check_word(self, option: str, words: Sequence[str]) -> None:
        """Refuse an option that is none of some words."""
        value = getattr(self, option)
        if value not in words:
            raise self.wrong(option, f"one of {', '.join(words)}", closest(str(value), words))

    def wrong(self, option: str, expected: str, hint: str = "") -> InputError:
        """The error of an option with a value that it cannot have."""
        value = getattr(self, option)
        hint = f": {hint}" if hint else ""
        return InputError(
            f"option '{option}' of measure '{self.name}' must be {expected}, not {value!r}{hint}"
        )

    @abstractmethod
    def _prepare(self, features: NDArray[np.float64], eps: float) -> State:
        """See ``prepare``."""

    @abstractmethod
    def _compare(self, a: Sequence[State], b: Sequence[State]) -> NDArray[np.float64]:
        """See ``compare``; rounding may leave the range."""


def feature_measures(names: Iterable[str]) -> dict[str, FeatureMeasure[Any]]:
    """Those of the named measures that compare features, such as ``cka`` and ``gulp(l=0.1)``.

    Raises:
        InputError: an option that a measure does not have, or that cannot have this value.
    """
    found = {}
    for name in names:
        plain, options = split_options(name)
        measure = MEASURES.get(plain)
        if isinstance(measure, FeatureMeasure):
            found[name] = measure.with_options(options)
    return found


def find_feature_measure(
    name: str, options: Mapping[str, Any] | None = None
) -> FeatureMeasure[Any]:
    """The registered measure of that name, with its options: those in the name, and others.

    Raises:
        InputError: no such measure or option (the message carries the closest name), or a measure
            that compares predictions.
    """
    plain, given = split_options(name)
    measure = MEASURES.get(plain)
    if not isinstance(measure, FeatureMeasure):
        raise InputError(f"measure '{plain}' compares predictions of heads, not features")
    return measure.with_options({**given, **(options or {})})
