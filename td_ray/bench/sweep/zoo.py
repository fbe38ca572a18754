"""The zoos that are swept: simulated feature arrays, and experiments that compare them.

All models see the same latent variables, whose spectrum decays as that of networks' features does,
each turned by a rotation of its own and with noise of its own. Labels are those of a linear teacher
on the latent variables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray import yaml_files

NOISE = 0.3


@dataclass(frozen=True)
class Zoo:
    """Feature arrays in a folder, and what is fitted on each of them.

    Attributes:
        folder: where they are.
        samples: four fifths of them are the training split.
        width: of the features.
        classes: of the task.
        coarser: how many more tasks there are, of two classes each.
        seeds: cuts into two halves, both of which get heads of their own.
    """

    folder: Path
    samples: int
    width: int
    classes: int
    coarser: int
    seeds: int

    def fill(self, models: int) -> None:
        """Write labels, and the features of so many models; those that are there are kept."""
        random = np.random.default_rng(0)
        decay = 1 / np.arange(1, self.width + 1)
        latent = random.standard_normal((self.samples, self.width))
        teacher = random.standard_normal((self.width, self.classes)) * decay[:, None]
        scores = latent @ (teacher / np.linalg.norm(teacher, axis=0))
        scores *= 3 * self.classes**0.35  # heads are then right about as often as real ones
        labels = (scores + random.gumbel(size=scores.shape)).argmax(1)
        self.folder.mkdir(exist_ok=True)
        np.savez(self._labels, id=np.arange(self.samples).astype(str), label=labels)
        for path in (self._features(number) for number in range(models)):
            if not path.exists():
                np.save(path, _seen(latent, decay, path.stem))

    def write_experiment(self, output: Path, models: Iterable[int]) -> Path:
        """Write an experiment on some of the models beside its output; returns its path."""
        task = {"data": "samples", "target": "label"}
        family = {"kind": "superclasses", "count": self.coarser, "classes": 2}
        coarser = [{"name": "coarser", **task, "family": family}] if self.coarser else []
        table = {"name": "samples", "source": "table", "path": str(self._labels)}
        content: dict[str, Any] = {
            "name": "sweep",
            "models": [
                {"source": "features", "path": str(self._features(number)), "ids": "row-order"}
                for number in models
            ],
            "data": [{**table, "stratify": "label"}],
            "tasks": [{"name": "label", **task}, *coarser],
            "seeds": self.seeds,
            "output": output.name,
        }
        path = output.with_suffix(".yaml")
        path.write_text(yaml_files.write(content))
        return path

    @property
    def _labels(self) -> Path:
        return self.folder / "labels.npz"

    def _features(self, number: int) -> Path:
        return self.folder / f"net-{number:04d}.npy"


def _seen(latent: NDArray[Any], decay: NDArray[Any], name: str) -> NDArray[np.float32]:
    """(samples, width) what the model of that name makes of the latent variables."""
    random = np.random.default_rng(list(name.encode()))
    rotation = np.linalg.qr(random.standard_normal((len(decay), len(decay))))[0]
    noisy = latent + NOISE * random.standard_normal(latent.shape)
    seen: NDArray[np.float32] = ((noisy * decay) @ rotation).astype(np.float32)
    return seen
