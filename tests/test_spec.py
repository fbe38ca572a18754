"""The experiment file: what is right loads, what is wrong says where, what, and what to do."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from td_ray.errors import InputError
from td_ray.spec import Experiment, PairRule

MODEL = {"source": "features", "path": "features/*.npy"}
DATA = {"name": "flowers", "source": "table", "path": "labels.csv"}
TASK = {"name": "species", "data": "flowers", "target": "species"}

WORDS = st.text(st.characters(codec="utf-8"), max_size=8)


def parse(**changes: Any) -> Experiment:
    return Experiment.parse({"models": [MODEL], "data": [DATA], "tasks": [TASK], **changes})


def refused(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        parse(**changes)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("experiment: ")
    return message.removeprefix("experiment: ")


def write(place: Path, **changes: Any) -> Path:
    file = place / "mine.yaml"
    content = {"models": [MODEL], "data": [DATA], "tasks": [TASK], **changes}
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.parametrize(
    ("changes", "place", "hint"),
    [
        ({"resorces": {}}, "resorces", "resources"),
        ({"models": [{**MODEL, "kee": "x"}]}, "models.0.kee", "key"),
        ({"models": [{"source": "features", "pth": "x"}]}, "models.0.pth", "path"),
        ({"models": [MODEL, {**MODEL, "layer": "x"}]}, "models.1.layer", "layers"),
        ({"data": [{**DATA, "stratfy": "x"}]}, "data.0.stratfy", "stratify"),
        ({"data": [{**DATA, "split": {"colum": "x"}}]}, "data.0.split.colum", "column"),
        ({"tasks": [{**TASK, "clases": {}}]}, "tasks.0.clases", "classes"),
        ({"heads": [{"kind": "logistic", "l3": 1}]}, "heads.0.l3", "l2"),
        ({"pairs": [["a", "b"], {"betwen": "x"}]}, "pairs.1.betwen", "between"),
        ({"resources": {"devise": "cpu"}}, "resources.devise", "device"),
    ],
)
def test_unknown_keys_name_their_place_and_the_closest_key(
    changes: dict[str, Any], place: str, hint: str
) -> None:
    assert refused(**changes) == f"{place}: unknown key: did you mean '{hint}'?"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"models": [{**MODEL, "source": "featurs"}]},
            "models.0: unknown model source 'featurs': did you mean 'features'?",
        ),
        (
            {"data": [{**DATA, "source": "tabel"}]},
            "data.0: unknown data source 'tabel': did you mean 'table'?",
        ),
        ({"heads": ["logistik"]}, "heads.0: unknown head 'logistik': did you mean 'logistic'?"),
        ({"measures": ["tdd"]}, "measures: unknown measure 'tdd': did you mean 'td'?"),
        (
            {"tasks": [{**TASK, "data": "flower"}]},
            "task 'species': no data set is called 'flower': did you mean 'flowers'?",
        ),
        (
            {"tasks": [{**TASK, "evaluate": "flowerz"}]},
            "task 'species': no data set is called 'flowerz': did you mean 'flowers'?",
        ),
    ],
)
def test_misspelt_names_get_the_closest_one(changes: dict[str, Any], message: str) -> None:
    assert refused(**changes).startswith(message)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": []}, ["models", "this list is empty"]),
        ({"models": ["a.npy"]}, ["models.0", "a mapping", "'a.npy'"]),
        ({"models": [{"path": "a.npy"}]}, ["models.0", "'source' is missing", "features"]),
        ({"models": [{"source": "features"}]}, ["models.0.path", "missing"]),
        ({"models": [{"source": "features", "path": []}]}, ["models.0.path", "this list is empty"]),
        ({"models": [{**MODEL, "metadata": {"a": [1]}}]}, ["models.0.metadata.a", "[1]"]),
        ({"data": [{**DATA, "split": {"test": 1.5}}]}, ["data.0.split.test", "less than 1"]),
        ({"data": [{**DATA, "split": {"test": 0}}]}, ["data.0.split.test", "greater than 0"]),
        ({"data": [{**DATA, "split": {"test": "t"}}]}, ["data.0.split", "'column'"]),
        ({"data": [{**DATA, "split": {"column": "s", "test": 0.2}}]}, ["data.0.split", "not both"]),
        ({"data": [{**DATA, "split": {"column": "s", "train": "test"}}]}, ["same word"]),
        ({"data": [DATA, DATA]}, ["two data sets are called 'flowers'"]),
        ({"tasks": [TASK, TASK]}, ["two tasks are called 'species'"]),
        ({"tasks": [{**TASK, "name": ""}]}, ["tasks.0.name", "at least 1"]),
        ({"tasks": [{**TASK, "distance": "mean"}]}, ["tasks.0", "'distance'", "regression"]),
        ({"tasks": [{**TASK, "kind": "regression", "classes": {}}]}, ["tasks.0", "'classes'"]),
        ({"heads": ["logistic", "logistic"]}, ["two heads are called 'logistic'"]),
        ({"heads": [{}]}, ["heads.0", "'kind' is missing", "linear, logistic, mlp, ridge"]),
        ({"heads": [{"kind": "logistic", "l2": -1}]}, ["heads.0.l2", "greater than 0", "-1"]),
        ({"heads": [{"kind": "logistic", "l2": 0}]}, ["heads.0.l2", "no optimum", "such as 1e-6"]),
        ({"heads": [{"kind": "logistic", "l2": [1, 0]}]}, ["heads.0.l2.1", "no optimum"]),
        ({"heads": [{"kind": "ridge", "l2": [1, -1]}]}, ["heads.0.l2.1", "equal to 0", "-1"]),
        ({"heads": [{"kind": "ridge", "l2": float("inf")}]}, ["heads.0.l2", "finite"]),
        ({"heads": [{"kind": "ridge", "l2": []}]}, ["heads.0", "empty grid"]),
        ({"heads": [{"kind": "ridge", "l2": [1, 1]}]}, ["heads.0", "twice"]),
        (
            {"heads": [{"kind": "logistic", "targets": "regression"}]},
            ["heads.0: head 'logistic'", "takes classification tasks, not regression", "ridge"],
        ),
        (
            {"heads": ["ridge"]},
            ["task 'species' is classification", "there is ridge", "logistic"],
        ),
        ({"heads": [3]}, ["heads.0", "a mapping", "3"]),
        ({"heads": [{"kind": "linear", "hidden": 8}]}, ["heads.0.hidden", "unknown key"]),
        ({"heads": [{"kind": "linear", "l2": 1}]}, ["heads.0.l2", "unknown key"]),
        ({"heads": [{"kind": "linear", "learning_rate": 0}]}, ["heads.0.learning_rate", "0"]),
        ({"heads": [{"kind": "linear", "learning_rate": []}]}, ["heads.0.learning_rate", "empty"]),
        ({"heads": [{"kind": "mlp", "hidden": [8, 8]}]}, ["heads.0.hidden", "twice"]),
        ({"heads": [{"kind": "mlp", "hidden": 0.5}]}, ["heads.0.hidden", "0.5"]),
        ({"heads": [{"kind": "mlp", "optimizer": "adam"}]}, ["heads.0.optimizer", "'adamw'"]),
        ({"heads": [{"kind": "linear", "momentum": 0.5}]}, ["heads.0", "is for optimizer sgd"]),
        (
            {"heads": [{"kind": "linear", "learning_rate": [1, 9], "weight_decay": 0.2}]},
            ["heads.0", "less than 1, not 1.8"],
        ),
        ({"heads": [{"kind": "linear", "epochs": 0}]}, ["heads.0.epochs", "equal to 1"]),
        ({"seeds": -1}, ["seeds", "how many"]),
        ({"seeds": 20240607}, ["seeds", "how many"]),
        ({"seeds": True}, ["seeds", "how many"]),
        ({"seeds": [1, 1]}, ["seeds", "distinct"]),
        ({"seeds": [-1]}, ["seeds", "from 0"]),
        ({"pairs": "some"}, ["pairs", "'all'", "'some'"]),
        ({"pairs": ["a", "b"]}, ["pairs.0", "a list"]),
        ({"pairs": [["a"]]}, ["pairs.0", "two names or globs", "['a']"]),
        ({"pairs": [["a", 3]]}, ["pairs.0", "two names or globs", "['a', 3]"]),
        ({"pairs": [["a", "b"], {}]}, ["pairs.1", "'within'"]),
        ({"pairs": [{"within": []}]}, ["pairs.0", "'within'"]),
        ({"pairs": [{"names": ["a"]}]}, ["pairs.0.names"]),
        ({"pairs": [{"names": ["a", "b"], "file": "x.csv"}]}, ["pairs.0", "not both"]),
        ({"pairs": [{"within": "a", "between": ["b", "a"]}]}, ["pairs.0", "another 'a'"]),
        ({"pairs": "pairs.txt"}, ["pairs", "'all'", ".csv", "'pairs.txt'"]),
        ({"pairs": []}, ["pairs", "this list is empty"]),
        ({"examples": 1}, ["examples", "equal to 2"]),
        ({"measures": []}, ["measures", "this list is empty"]),
        ({"resources": {"device": "gpu"}}, ["resources.device", "'cuda'", "'gpu'"]),
        ({"resources": {"memory": "2 XB"}}, ["resources.memory", "'2 XB'"]),
        ({"resources": {"batch_size": 0}}, ["resources.batch_size"]),
    ],
)
def test_wrong_values_name_their_place(changes: dict[str, Any], words: list[str]) -> None:
    message = refused(**changes)
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", ["a\nb", "a\0", "\x1b[31m", "a\x85b", "a\u2028b", "a\udc80b", ""])
@pytest.mark.parametrize("place", ["name", "data.0.name", "tasks.0.name", "heads.0.name"])
def test_names_are_lines(place: str, name: str) -> None:
    changes: dict[str, Any] = {
        "name": {"name": name},
        "data.0.name": {"data": [{**DATA, "name": name}]},
        "tasks.0.name": {"tasks": [{**TASK, "name": name}]},
        "heads.0.name": {"heads": [{"kind": "logistic", "name": name}]},
    }
    message = refused(**changes[place])
    assert message.startswith(f"{place}: ")
    assert message.isprintable()


@pytest.mark.parametrize("folder", ["a\0b", "a\udc80b", "x" * 300, "a/" + "ü" * 128 + "/b"])
@pytest.mark.parametrize("place", ["output", "folder", "resources.cache"])
def test_folders_that_cannot_be(place: str, folder: str) -> None:
    changes = {"resources": {"cache": folder}} if "." in place else {place: folder}
    message = refused(**changes)
    assert message.startswith(f"{place}: ")
    assert message.isprintable()


@pytest.mark.parametrize("output", ["x" * 255, "[red]", "a=b", "a?b#c", "%41", "~", "-rf", "</p>"])
def test_folders_that_can_be(output: str, tmp_path: Path) -> None:
    experiment = parse(output=output, folder=str(tmp_path))
    assert again(experiment, tmp_path).output_folder.local == tmp_path / output


def test_further_errors_are_counted() -> None:
    message = refused(tasks=[{**TASK, "kin": 1}], resources={"tile": 0}, seeds=[1, 1])
    assert "(2 more after this one)" in message


def test_missing_keys() -> None:
    with pytest.raises(InputError, match=r"^x: models: this key is missing \(2 more"):
        Experiment.parse({}, "x")


def test_seeds_are_a_count_or_a_list() -> None:
    assert parse(seeds=5).seeds == (0, 1, 2, 3, 4)
    assert parse(seeds=[7, 3]).seeds == (3, 7)
    assert parse(seeds=0).seeds == ()
    assert parse().seeds == (0, 1, 2, 3, 4)


def test_pairs_forms() -> None:
    assert parse().pairs == "all"
    globs, groups = parse(pairs=[["a-*", "*"], {"within": "arch", "between": ["seed"]}]).pairs
    assert isinstance(globs, PairRule)
    assert globs.names == ("a-*", "*")
    assert groups == PairRule(within=("arch",), between=("seed",))
    assert parse(pairs="some.csv").pairs == (PairRule(file="some.csv"),)
    listed = parse(pairs=[["a", "b"], {"within": "arch"}, {"file": "x.csv"}])
    content = yaml.safe_load(listed.to_yaml())
    assert content["pairs"] == [{"names": ["a", "b"]}, {"within": ["arch"]}, {"file": "x.csv"}]
    assert Experiment.parse(content) == listed


def test_one_word_may_stand_for_a_list() -> None:
    experiment = parse(
        models=[{**MODEL, "layers": "output"}],
        tasks=[{**TASK, "evaluate": "flowers"}],
        heads=[{"kind": "ridge", "targets": "classification"}],
        measures="td",
    )
    assert experiment.models[0].layers == ("output",)
    assert experiment.tasks[0].evaluate == ("flowers",)
    assert experiment.heads[0].targets == ("classification",)
    assert experiment.measures == ("td",)


def test_heads_by_default_serve_the_kind_they_are_for() -> None:
    logistic, ridge = parse().heads
    assert (logistic.kind, logistic.targets) == ("logistic", ("classification",))
    assert (ridge.kind, ridge.targets) == ("ridge", ("regression",))
    assert [head.name for head in parse(heads=["logistic"]).heads] == ["logistic"]


def test_frozen() -> None:
    experiment = parse()
    with pytest.raises(ValidationError):
        experiment.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        experiment.models[0].name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        experiment.tasks[0].target = "other"  # type: ignore[misc]


def test_load_takes_name_and_folder_from_the_file(tmp_path: Path) -> None:
    experiment = Experiment.load(write(tmp_path))
    assert experiment.name == "mine"
    assert experiment.folder == tmp_path
    assert experiment.output_folder.local == tmp_path / "output"


def test_a_relative_folder_starts_at_the_file_not_at_the_process(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert Experiment.load(write(tmp_path, folder="sub")).folder == tmp_path / "sub"


def test_load_of_a_folder_reads_its_experiment(tmp_path: Path) -> None:
    write(tmp_path).rename(tmp_path / "experiment.yaml")
    assert Experiment.load(tmp_path).tasks[0].name == "species"
    with pytest.raises(InputError, match="no file at"):
        Experiment.load(tmp_path / "nowhere.yaml")


def test_errors_start_with_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, sedes=3)
    with pytest.raises(InputError) as caught:
        Experiment.load(file)
    assert str(caught.value) == f"{file}: sedes: unknown key: did you mean 'seeds'?"


def test_a_key_with_nothing_after_it_is_as_good_as_absent(tmp_path: Path) -> None:
    experiment = Experiment.load(write(tmp_path, resources=None, seeds=None))
    assert experiment.seeds == (0, 1, 2, 3, 4)
    experiment = Experiment.load(write(tmp_path, resources=None), ["resources.tile=8"])
    assert experiment.resources.tile == 8


def test_overrides_reach_everything(tmp_path: Path) -> None:
    file = write(tmp_path, heads=["ridge", {"kind": "logistic", "l2": 1}])
    overrides = [
        "heads.logistic.l2=1e-2",
        "tasks.species.target=colour",
        "data.0.split.test=0.5",
        "models.0.path=other/*.npy",
        "resources.batch_size=7",
        "seeds=2",
    ]
    experiment = Experiment.load(file, overrides)
    assert experiment.heads[1].l2 == 0.01
    assert experiment.tasks[0].target == "colour"
    assert experiment.data[0].split.test == 0.5
    assert experiment.models[0].model_dump()["path"] == ("other/*.npy",)
    assert experiment.resources.batch_size == 7
    assert experiment.seeds == (0, 1)
    with pytest.raises(InputError, match="unknown key: did you mean 'batch_size'"):
        Experiment.load(file, ["resources.batchsize=7"])


def test_the_template_is_a_valid_experiment(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(files("td_ray").joinpath("template.yaml").read_text())
    experiment = Experiment.load(file)
    assert {task.kind for task in experiment.tasks} == {"classification", "regression"}
    assert experiment.heads[0].l2 == 1e-3
    uncommented = "".join(
        line.replace("# - {kind:", "- {kind:") for line in file.read_text().splitlines(True)
    )
    file.write_text(uncommented)
    heads = Experiment.load(file).heads
    assert [head.kind for head in heads] == ["logistic", "ridge", "linear", "mlp"]


def again(experiment: Experiment, folder: Path) -> Experiment:
    file = folder / "again.yaml"
    file.write_text(experiment.to_yaml(), encoding="utf-8")
    return Experiment.load(file)


def test_yaml_round_trip(tmp_path: Path) -> None:
    experiment = parse(
        name="größe: 1e-3",
        models=[
            {**MODEL, "name": "1e-3", "metadata": {"a": None, "b": "yes", "c": 1e-5, "d": "007"}},
            {
                "source": "checkpoints",
                "path": ["a/{x}.pt", "b.safetensors"],
                "factory": "nets:build",
                "arguments": {"width": None, "deep": {"list": [1, 2.5, "1e5", None]}},
            },
            {"source": "torchvision", "builder": "resnet18"},
            {"source": "predictions", "path": "p.npz", "columns": {"species": "s"}},
        ],
        data=[{**DATA, "split": {"column": "fold", "train": "1", "test": "2"}, "inputs": "i.npy"}],
        tasks=[
            {**TASK, "classes": {"x": [1, True, None, "no"], "y": [0.5]}},
            {**TASK, "name": "r", "kind": "regression", "distance": "mean"},
        ],
        heads=[
            {"kind": "logistic", "l2": [1e-5, 1]},
            "ridge",
            {"kind": "linear", "optimizer": "sgd", "momentum": 0.5, "learning_rate": [1e-2, 1]},
            {"kind": "mlp", "hidden": [8, 16], "weight_decay": 0},
        ],
        pairs=[["a*", "*"]],
        resources={"cache": "cache", "memory": "1 GiB"},
        folder=str(tmp_path),
    )
    assert again(experiment, tmp_path) == experiment


@given(
    metadata=st.dictionaries(
        WORDS,
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(2**70), 2**70),
            st.floats(allow_nan=False),
            WORDS,
            st.from_regex(r"[-+0-9._:eExob~]{1,8}", fullmatch=True),
        ),
    )
)
def test_yaml_round_trip_of_any_metadata(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("yaml")
    experiment = parse(models=[{**MODEL, "metadata": metadata}], folder=str(folder))
    read = again(experiment, folder)
    assert read == experiment
    assert list(map(type, read.models[0].metadata.values())) == list(map(type, metadata.values()))


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TD_RAY_CACHE", "/named")
    assert parse().cache_path == Path("/named")
    assert parse(resources={"cache": "c"}, folder=str(tmp_path)).cache_path == tmp_path / "c"
    monkeypatch.setenv("TD_RAY_CACHE", "named")
    with pytest.raises(InputError, match="TD_RAY_CACHE is 'named', which is not an absolute path"):
        parse().cache_path  # noqa: B018 - it is looked up when asked for
    monkeypatch.delenv("TD_RAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert parse().cache_path == Path("/xdg/td-ray")


@pytest.mark.parametrize("key", ["data", "models", "tasks"])
def test_a_misspelt_key_says_more_than_the_one_that_is_missing(key: str) -> None:
    given: dict[str, Any] = {"models": [MODEL], "data": [DATA], "tasks": [TASK]}
    given[key[:-1]] = given.pop(key)
    with pytest.raises(InputError) as caught:
        Experiment.parse(given)
    assert str(caught.value) == f"experiment: {key[:-1]}: unknown key: did you mean '{key}'?"
