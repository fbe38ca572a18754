"""The README's commands and code work as pasted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from td_ray.results.tables import Results, open_results
from td_ray.spec import Experiment
from td_ray.sweep import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

pytestmark = pytest.mark.ray


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, demo: Results, demo_folder: Path) -> Path:
    """A folder in which 'make demo' has been run."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "td-ray-demo").symlink_to(demo_folder)
    activate = folder / ".venv/bin/activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')
    (zoo,) = (block for block in blocks("bash") if "cat > my-zoo.yaml" in block)
    subprocess.run(["bash", "-euc", zoo], cwd=folder, check=True, timeout=300)
    return folder


def test_a_zoo_of_ones_own(folder: Path) -> None:
    yaml = re.search(r"<<'YAML'\n(.*?)YAML\n", README, flags=re.DOTALL)
    assert yaml is not None
    assert len(yaml[1].splitlines()) <= 10
    results = open_results(folder / "my-zoo")
    assert len(results.matrix("digit").to_pandas()) == 15
    assert (folder / "my-zoo/report.html").is_file()


@pytest.mark.parametrize("block", blocks("python"), ids=["experiment", "arrays"])
def test_python(folder: Path, block: str) -> None:
    assert len(block.strip().splitlines()) <= 11
    subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=folder, check=True, timeout=300
    )


def test_both_commands_are_on_the_first_screen() -> None:
    first_screen = README.splitlines()[:25]
    for command in ("make demo", "make test"):
        assert any(line.startswith(command) for line in first_screen)


def test_the_printed_matrix_is_the_demos(demo: Results) -> None:
    """Within what another processor's training changes; the percentages are its diagonal's."""
    printed = README.split("td of task 'digit'\n")[1].split("```")[0].splitlines()
    names = printed[0].split()
    rows = [line.split() for line in printed[1:] if line]
    table = demo.matrix("digit").group_means("strategy")
    assert [row[0] for row in rows] == list(table.index)
    np.testing.assert_allclose(
        np.array([row[1:] for row in rows], dtype=float), table[names], atol=0.01
    )
    diagonal = {row[0]: float(row[names.index(row[0]) + 1]) for row in rows}
    for strategy in ("augmentation", "plain", "label_noise"):
        assert f"{diagonal[strategy]:.1%}" in README


def test_the_claim_about_the_slant(demo: Results) -> None:
    """Better strategies do not agree more there, and the README says so."""
    slant = demo.matrix("slant").group_means("strategy")
    assert slant.loc["augmentation", "augmentation"] > slant.loc["plain", "plain"]


def test_what_noise_costs(demo: Results, folder: Path) -> None:
    """The table of heads, from the heads that are shown, on the zoo that is shown."""
    (heads,) = (block for block in blocks("yaml") if block.startswith("heads:"))
    content = (folder / "my-zoo.yaml").read_text().replace("output: my-zoo", "output: noise")
    (folder / "noise.yaml").write_text(content + heads)
    results = run(Experiment.load(folder / "noise.yaml"))
    table = README.split("| head | td | noise floor | accuracy |\n|---|---|---|---|\n")[1]
    rows = [line.strip("| ").split(" | ") for line in table.split("\n\n")[0].splitlines()]
    assert [row[0] for row in rows] == ["logistic", "linear", "short"]
    scores = results.heads().query("seed.isna()").groupby("head")["score"].mean()
    for head, td, floor, accuracy in rows:
        pairs = results.pairs().query("head == @head")
        assert float(td) == pytest.approx(pairs["value"].mean(), abs=0.006)
        floors = results.floors("digit", head=head).mean()
        assert float(floor) == pytest.approx(floors, abs=0.006)
        assert float(accuracy.rstrip("%")) / 100 == pytest.approx(scores[head], abs=0.006)


def test_figures_and_files_exist() -> None:
    for path in re.findall(r"\]\(([^)#]+)\)", README):
        if not path.startswith("http"):
            assert (ROOT / path).exists(), path
    for path in re.findall(r"`((?:clusters|jobs|td_ray)/[\w/.]*)`", README):
        assert (ROOT / path).exists(), path
    assert os.access(ROOT / "clusters/workstation/start.sh", os.X_OK)
