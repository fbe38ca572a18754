"""Models and data sets of the hub: fetched once from a real server, then read without one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_hub import COMMIT, Hub, serving
from small_transformers import WORDS, save_bert

datasets = pytest.importorskip("datasets")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MAIN = "from td_ray.cli import main; main()"

EXPERIMENT = f"""
models:
  - {{source: huggingface, model: [who/small, who/old], revision: {COMMIT}, layers: [output]}}
data:
  - {{name: reviews, source: huggingface, dataset: who/reviews, revision: {COMMIT}, inputs: text}}
tasks: [{{name: liked, data: reviews, target: label}}]
seeds: 1
"""


def save_reviews(folder: Path) -> None:
    for part, n in (("train", 40), ("test", 20)):
        texts = [f"{WORDS[row % 4]} {WORDS[4 + row % 2]} {WORDS[row % 3]}" for row in range(n)]
        content = {"text": texts, "label": [int(row % 4 < 2) for row in range(n)]}
        path = folder / f"data/{part}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(content).to_parquet(str(path))
    (folder / "README.md").write_text("---\nlicense: mit\n---\nReviews.\n")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Repositories as the hub has them: with weights for other frameworks beside."""
    root = tmp_path_factory.mktemp("served")
    save_bert(root / "small", 0)
    small = root / "small"
    for name in ("pytorch_model.bin", "model.onnx", "onnx/model.onnx", "1_Pooling/config.json"):
        (small / name).parent.mkdir(exist_ok=True)
        (small / name).write_bytes(b"{}" * 99)
    (small / "README.md").write_text("A model.")
    save_bert(root / "old", 1)
    weights = transformers.BertModel.from_pretrained(root / "old").state_dict()
    torch.save(weights, root / "old/pytorch_model.bin")
    (root / "old/model.safetensors").unlink()
    save_reviews(root / "reviews")
    return {
        "models/who/small": root / "small",
        "models/who/old": root / "old",
        "datasets/who/reviews": root / "reviews",
    }


@dataclass
class Machine:
    """A folder with an experiment and caches of its own, and the commands that run there."""

    folder: Path
    hub: Hub

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``td-ray`` in a process: the hub's library reads the environment when imported."""
        environment = {
            **os.environ,
            "HF_ENDPOINT": self.hub.address,
            "HF_HOME": str(self.folder / "hf"),
            "TD_RAY_CACHE": str(self.folder / "cache"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
            environment.pop(name, None)
        command = [sys.executable, "-c", MAIN, words[0], "experiment.yaml", *words[1:]]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True
        )

    def snapshot(self, repository: str) -> Path:
        name = repository.replace("/", "--")
        return self.folder / "hf/hub" / name / "snapshots" / COMMIT


def machine(folder: Path, hub: Hub, experiment: str = EXPERIMENT) -> Machine:
    (folder / "experiment.yaml").write_text(experiment)
    return Machine(folder, hub)


def test_fetched_once_then_run_without_a_connection(
    tmp_path: Path, served: dict[str, Path]
) -> None:
    with serving(served) as hub:
        td_ray = machine(tmp_path, hub)
        planned = td_ray("plan")
        assert planned.returncode == 2
        assert f"who/reviews is not whole in {td_ray.snapshot('datasets/who/reviews')}" in (
            planned.stderr
        )
        checked = td_ray("prefetch", "--check")
        assert checked.returncode == 1
        assert checked.stdout.splitlines() == [
            *(
                f"{what}: who/{name} is not whole in {td_ray.snapshot(f'{kind}/who/{name}')} (no "
                f"such folder); 'td-ray prefetch' fetches it from {hub.address}/{page}who/{name}"
                f"/tree/{COMMIT}, or place it there by hand"
                for what, name, kind, page in (
                    ("data set 'reviews'", "reviews", "datasets", "datasets/"),
                    ("files of 'small'", "small", "models", ""),
                    ("files of 'old'", "old", "models", ""),
                )
            ),
            "0 of 3 were there already",
        ]
        assert not hub.asked  # neither plans nor checks ask anybody
        fetched = td_ray("prefetch")
        assert fetched.returncode == 0, fetched.stderr
        assert f"files of 'small': {hub.address}/who/small/tree/{COMMIT}" in fetched.stderr
        tokenizer = ["tokenizer.json", "tokenizer_config.json"]
        assert hub.downloads() == sorted(
            [
                *("README.md", "data/test-00000-of-00001.parquet"),
                "data/train-00000-of-00001.parquet",
                *("config.json", "model.safetensors", *tokenizer),  # of small
                *("config.json", "pytorch_model.bin", *tokenizer),  # of old
            ]
        )
        before = len(hub.asked)
        again = td_ray("prefetch")
        assert again.stdout == "3 of 3 were there already\n"
        assert len(hub.asked) == before
    assert td_ray("prefetch", "--check").returncode == 0  # the server is gone
    run = td_ray("run", "--backend", "inline")
    assert run.returncode == 0, run.stderr
    shown = td_ray("status", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["missing"] == 0


def test_a_missing_model_is_seen_while_planning(tmp_path: Path, served: dict[str, Path]) -> None:
    with serving(served) as hub:
        td_ray = machine(tmp_path, hub)
        assert td_ray("prefetch").returncode == 0
        before = len(hub.asked)
        place = td_ray.snapshot("models/who/old")
        (place / "pytorch_model.bin").unlink()
        for words in (("plan",), ("run", "--backend", "inline")):
            said = td_ray(*words)
            assert said.returncode == 2
            assert said.stderr.splitlines()[-1].endswith(
                f"model 'old': files of 'old': who/old is not whole in {place} (no "
                f"model.safetensors); 'td-ray prefetch' fetches it from {hub.address}/who/old/tree/"
                f"{COMMIT}, or place it there by hand"
            )
        (place / "pytorch_model.bin").write_bytes(b"")  # placed by hand
        assert td_ray("plan").returncode == 0
        (place / "tokenizer.json").unlink()
        said = td_ray("plan")
        assert said.returncode == 2
        assert "1 file(s) are missing (tokenizer.json)" in said.stderr
        assert len(hub.asked) == before


@pytest.mark.parametrize(
    ("repository", "file"),
    [
        ("models/who/small", "model.safetensors"),
        ("models/who/small", "config.json"),
        ("datasets/who/reviews", "data/train-00000-of-00001.parquet"),
    ],
)
def test_a_truncated_file_is_found_and_fetched_again(
    tmp_path: Path, served: dict[str, Path], repository: str, file: str
) -> None:
    with serving(served) as hub:
        td_ray = machine(tmp_path, hub)
        assert td_ray("prefetch").returncode == 0
        path = td_ray.snapshot(repository) / file
        blob = path.resolve()
        whole = blob.read_bytes()
        blob.write_bytes(whole[:-1])
        for words in (("prefetch", "--check"), ("prefetch",)):
            said = td_ray(*words)
            assert said.returncode == 1
            (line,) = said.stderr.splitlines()
            assert f"{file} is damaged: its digest starts with" in line
            assert f"not {blob.name[:8]}; delete " in line
        delete = Path(line.split("; delete ")[1].split(", and ")[0])
        delete.unlink()
        assert td_ray("prefetch", "--check").returncode == 1
        assert td_ray("prefetch").returncode == 0
        assert path.read_bytes() == whole


def test_files_may_be_placed_by_hand(tmp_path: Path, served: dict[str, Path]) -> None:
    td_ray = machine(tmp_path, Hub("http://127.0.0.1:9"))  # nobody listens
    for name, folder in served.items():
        shutil.copytree(folder, td_ray.snapshot(name))
    checked = td_ray("prefetch", "--check")
    assert (checked.returncode, checked.stdout) == (0, "3 of 3 were there already\n")
    run = td_ray("run", "--backend", "inline")
    assert run.returncode == 0, run.stderr


def test_what_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    with serving({}) as hub:
        td_ray = machine(tmp_path, hub)
        said = td_ray("prefetch")
    assert said.returncode == 1
    address = f"{hub.address}/datasets/who/reviews/tree/{COMMIT}"
    what, failure = said.stderr.splitlines()
    assert what == f"data set 'reviews': {address}"
    assert f"data set 'reviews' could not be had from {address}: 404 Client Error" in failure
    place = td_ray.snapshot("datasets/who/reviews")
    assert failure.endswith(f"or place its files by hand in {place}")


def test_a_missing_shard_is_named(tmp_path: Path, served: dict[str, Path]) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(served["models/who/small"], folder)
    model = transformers.BertModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="1KB")
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    with serving({**served, "models/who/small": folder}) as hub:
        td_ray = machine(tmp_path, hub)
        assert td_ray("prefetch").returncode == 0
        assert {*shards} <= {*hub.downloads()}
        (td_ray.snapshot("models/who/small") / shards[1]).unlink()
        said = td_ray("plan")
        assert said.returncode == 2
        assert f"(no {shards[1]})" in said.stderr


def test_code_that_comes_with_a_model_is_seen_while_planning(
    tmp_path: Path, served: dict[str, Path]
) -> None:
    folder = tmp_path / "coded"
    shutil.copytree(served["models/who/small"], folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "code.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("# nothing")
    with serving({**served, "models/who/small": folder}) as hub:
        td_ray = machine(tmp_path, hub)
        assert td_ray("prefetch").returncode == 0
        assert "code.py" not in hub.downloads()
        said = td_ray("plan")
        assert said.returncode == 2
        assert "'who/small' comes with code of its own" in said.stderr
        allowed = EXPERIMENT.replace("layers:", "allow_remote_code: true, layers:")
        td_ray = machine(tmp_path, hub, allowed)
        assert td_ray("prefetch").returncode == 0
        assert "code.py" in hub.downloads()
        assert td_ray("plan").returncode == 0
