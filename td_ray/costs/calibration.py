"""A calibration: what work takes of a machine, as ``td-ray bench costs`` measures it.

    {"machine": "...", "measured": "2026-11-29", "cpu": {...}, "gpu": null, "measures": {...}, ...}

A plan takes the file that it is given; or the one that this user's last ``td-ray bench costs`` has
written; or, where there is none, the one that comes with this package, of an ordinary machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from td_ray.costs.counts import Counts, Prices
from td_ray.errors import InputError
from td_ray.files import reading, require_file, write_json

ORDINARY = Path(__file__).with_name("ordinary.json")
_NAMED = "TD_RAY_CALIBRATION"
UNKNOWN_MEASURE = "td"
"""Whose price a measure has that is not in the calibration."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Device(_Frozen):
    """What networks and heads take of one core, while all cores are at work, or of one GPU.

    Attributes:
        networks: forward passes, by precision; one that is missing costs what float32 does.
        heads: fits, by kind of head.
    """

    networks: Mapping[str, Prices]
    heads: Mapping[str, Prices]

    @model_validator(mode="after")
    def _has_what_others_fall_back_on(self) -> Self:
        if "float32" not in self.networks or "logistic" not in self.heads:
            raise ValueError("'networks' needs 'float32', and 'heads' 'logistic'")
        return self

    def forward(self, work: Counts, precision: str) -> float:
        """Seconds of forward passes."""
        return self.networks.get(precision, self.networks["float32"]).seconds(work)

    def fits(self, work: Counts, kind: str) -> float:
        """Seconds of fits; a kind that was not measured costs what logistic heads do."""
        return self.heads.get(kind, self.heads["logistic"]).seconds(work)


class Calibration(_Frozen):
    """Unit costs of a machine; times in seconds.

    Attributes:
        machine: what they were measured on.
        measured: on which day.
        cpu: one core.
        gpu: one GPU, called ``gpu_name``; None where there was none.
        measures: comparisons on one core, by name of the measure.
        array: reading features that are in files, for 1e9 bytes.
        load: a network, until its first sample goes through.
        start: what a run takes that does nothing, through a Ray that is there.
        start_ray: what it takes more, where it starts one.
        trial: after which Ray starts one trial more.
        unit: what a unit takes beside its fits: files, planning, tables.
        stored: what one takes whose predictions are there already.
        unit_bytes: of the output, what each unit adds beside its predictions.
        pair_bytes: of the output, for a row of pairs.
    """

    machine: str
    measured: str
    cpu: Device
    gpu: Device | None
    gpu_name: str
    measures: Mapping[str, Prices]
    array: float = Field(ge=0)
    load: float = Field(ge=0)
    start: float = Field(ge=0)
    start_ray: float = Field(ge=0)
    trial: float = Field(ge=0)
    unit: float = Field(ge=0)
    stored: float = Field(ge=0)
    unit_bytes: float = Field(ge=0)
    pair_bytes: float = Field(ge=0)

    @model_validator(mode="after")
    def _has_what_others_fall_back_on(self) -> Self:
        if UNKNOWN_MEASURE not in self.measures:
            raise ValueError(f"'measures' has no '{UNKNOWN_MEASURE}'")
        return self

    def comparisons(self, work: Counts, measure: str) -> float:
        """Seconds of comparisons on one core; the measure's options do not count."""
        name = measure.partition("(")[0]
        return self.measures.get(name, self.measures[UNKNOWN_MEASURE]).seconds(work)

    def write(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.model_dump(mode="json"))


def read_calibration(path: Path) -> Calibration:
    """Read a calibration.

    Raises:
        InputError: there is none, or it is not one.
    """
    require_file(path, "calibration, which 'td-ray bench costs' writes")
    with reading(path, "calibration"):
        content = json.loads(path.read_text(encoding="utf-8"))
    try:
        return Calibration.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}." for part in first["loc"]).removesuffix(".")
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(
            f"calibration {path}: {where or 'its content'}: {message}; 'td-ray bench costs' writes "
            "a new one"
        ) from None


def find_calibration(path: Path | None, cache: Path) -> Calibration:
    """The calibration that is given; or else this user's own; or else the package's.

    Args:
        cache: the user's cache folder.

    Raises:
        InputError: it cannot be read, or ``TD_RAY_CALIBRATION`` names none.
    """
    own = own_calibration(cache)
    if path is None:
        path = own if own.is_file() or _NAMED in os.environ else ORDINARY
    return read_calibration(path)


def own_calibration(cache: Path) -> Path:
    """Where this user's calibration is: ``TD_RAY_CALIBRATION``, or a file in the cache folder."""
    named = os.environ.get(_NAMED)
    return Path(named) if named else cache / "calibration.json"
