"""Predictions of a simulated zoo whose discrepancies are known in closed form.

    python jobs/simulated_predictions.py FOLDER [--models 1000] [--seeds 5] [--examples 10000]
    td-ray run FOLDER/zoo.yaml
    python jobs/simulated_predictions.py FOLDER --check

An example has a consensus label. Each head of model i, on its own for every example, gives

    the consensus              with probability c_i
    a label of the model's own with probability o_i = (1 - c_i) / 2; all its heads have the same one
    a fresh label              else

where labels are uniform over C classes. Two labels that are drawn apart are equal by chance, 1/C,
so for two models, and for two heads of one model,

    td = tdx = (1 - 1/C) (1 - c_i c_j)
    floor    = (1 - 1/C) (1 - c_i^2 - o_i^2)

With n examples the standard deviation of a share p is sqrt(p (1 - p) / n).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from td_ray import open_results, yaml_files

CLASSES = 10
MOST_DEVIATIONS = 6.5
"""Of fifty million shares, none is further off by chance."""

Floats = NDArray[np.float64]


def consensus_shares(models: int) -> Floats:
    """(models,) c_i, from 0.6 to 0.95."""
    return np.linspace(0.6, 0.95, models)


def write_zoo(folder: Path, models: int, seeds: int, examples: int) -> None:
    """Write an npz file for each model, the labels, and the experiment."""
    (folder / "outputs").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    consensus = random.integers(CLASSES, size=examples, dtype=np.uint8)
    heads = ["label", *(f"label-{seed}{half}" for seed in range(seeds) for half in "ab")]
    for number, share in enumerate(consensus_shares(models)):
        own = random.integers(CLASSES, size=examples, dtype=np.uint8)
        arrays = {name: _head(random, consensus, own, share) for name in heads}
        np.savez(folder / f"outputs/net-{number:05d}.npz", allow_pickle=False, **arrays)
    train = CLASSES * 10  # nothing is fitted, but every class must be there
    label = np.concatenate([np.arange(train) % CLASSES, consensus])
    split = ["train"] * train + ["test"] * examples
    lines = (
        f"{row},{part},{code}" for row, (part, code) in enumerate(zip(split, label, strict=True))
    )
    (folder / "labels.csv").write_text("\n".join(["id,split,label", *lines]) + "\n")
    (folder / "zoo.yaml").write_text(yaml_files.write(_experiment(seeds)))


def _head(
    random: np.random.Generator, consensus: NDArray[np.uint8], own: NDArray[np.uint8], share: float
) -> NDArray[np.uint8]:
    draw = random.random(len(consensus))
    fresh = random.integers(CLASSES, size=len(consensus), dtype=np.uint8)
    return np.where(draw < share, consensus, np.where(draw < (1 + share) / 2, own, fresh))


def _experiment(seeds: int) -> dict[str, object]:
    model = {"source": "predictions", "path": "outputs/*.npz", "ids": "row-order"}
    split = {"column": "split"}
    return {
        "name": "simulated",
        "models": [{**model, "halves": "{task}-{seed}{half}"} if seeds else model],
        "data": [{"name": "examples", "source": "table", "path": "labels.csv", "split": split}],
        "tasks": [{"name": "label", "data": "examples", "target": "label"}],
        "heads": ["logistic"],
        "seeds": seeds,
    }


def check(folder: Path) -> None:
    """Compare the results with the closed forms.

    Raises:
        SystemExit: a value that chance does not explain.
    """
    results = open_results(folder / "output")
    matrix = results.matrix("label")
    c, chance = consensus_shares(len(matrix)), 1 - 1 / CLASSES
    examples = int(results.heads()["n_evaluation"].iloc[0])
    rows, columns = matrix.pairs
    expected = chance * (1 - c[rows] * c[columns])
    _compare("td", matrix.values[rows, columns], expected, examples)
    if not np.isnan(matrix.floors).all():
        tdx = results.matrix("label", value="tdx").values[rows, columns]
        _compare("tdx", tdx, expected, examples)
        _compare("floor", matrix.floors, chance * (1 - c**2 - ((1 - c) / 2) ** 2), examples)


def _compare(name: str, found: Floats, expected: Floats, examples: int) -> None:
    # of one draw: seeds share the consensus, and may all be off together
    off = np.abs(found - expected) / np.sqrt(expected * (1 - expected) / examples)
    print(
        f"{name}: {len(found):,} values, mean {expected.mean():.4f} expected, "
        f"{found.mean():.4f} found, at most {off.max():.1f} deviations off"
    )
    if not off.max() < MOST_DEVIATIONS:
        raise SystemExit(f"{name} is not what the closed form says")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--check", action="store_true", help="compare results that are there")
    given = parser.parse_args()
    if given.check:
        check(given.folder)
    else:
        write_zoo(given.folder, given.models, given.seeds, given.examples)


if __name__ == "__main__":
    main()
