"""Path patterns: what they match, what they keep, what models are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from td_ray.errors import InputError
from td_ray.spec import Experiment
from td_ray.zoo import resolve_representations
from td_ray.zoo.patterns import Match, fill, find


def touch(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x")


def matches(folder: Path, *patterns: str, data: tuple[str, ...] = ("d",)) -> list[Match]:
    return find(patterns, folder, data, "models")


def paths(folder: Path, *patterns: str, data: tuple[str, ...] = ("d",)) -> list[str]:
    return [match.path for match in matches(folder, *patterns, data=data)]


def test_wildcards_stay_within_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.pt", "a/22.pt", "a/b/3.pt", "c.pt", "a/.hidden.pt", "a/note.txt")
    (tmp_path / "a/folder.pt").mkdir()
    assert paths(tmp_path, "a/*.pt") == ["a/1.pt", "a/22.pt"]
    assert paths(tmp_path, "a/?.pt") == ["a/1.pt"]
    assert paths(tmp_path, "a/??.pt") == ["a/22.pt"]
    assert paths(tmp_path, "**/*.pt") == ["a/1.pt", "a/22.pt", "a/b/3.pt", "c.pt"]
    assert paths(tmp_path, "a/**/3.pt") == ["a/b/3.pt"]
    assert paths(tmp_path, "a/**") == ["a/1.pt", "a/22.pt", "a/b/3.pt", "a/note.txt"]
    assert paths(tmp_path, "c.pt") == ["c.pt"]
    assert paths(tmp_path, "c.pt", "a/?.pt") == ["c.pt", "a/1.pt"]


def test_words_are_kept(tmp_path: Path) -> None:
    touch(tmp_path, "zoo/mix-up-3.pt", "zoo/plain-007.pt", "zoo/plain.pt")
    mixed, plain = matches(tmp_path, "zoo/{strategy}-{seed}.pt")
    assert mixed.captures == {"strategy": "mix-up", "seed": "3"}
    assert mixed.metadata() == {"strategy": "mix-up", "seed": 3}
    assert mixed.default_name() == "mix-up-3"
    assert plain.metadata()["seed"] == "007"  # not the number 7: it would not be found again


def test_a_word_that_is_there_twice_matches_the_same_text(tmp_path: Path) -> None:
    touch(tmp_path, "a/a.pt", "a/b.pt", "b/b.pt")
    assert paths(tmp_path, "{x}/{x}.pt") == ["a/a.pt", "b/b.pt"]
    assert matches(tmp_path, "{x}/{x}.pt")[0].captures == {"x": "a"}


def test_words_and_wildcards_together(tmp_path: Path) -> None:
    touch(tmp_path, "r/x/deep/a-1.pt", "r/y/a-2.pt")
    found = matches(tmp_path, "r/{who}/**/{name}-?.pt")
    assert [match.path for match in found] == ["r/x/deep/a-1.pt", "r/y/a-2.pt"]
    assert [match.captures["who"] for match in found] == ["x", "y"]


def test_data_stays_in_the_path(tmp_path: Path) -> None:
    touch(tmp_path, "m1/a.npz", "m1/b.npz", "m2/b.npz", "m3/c.npz")
    assert paths(tmp_path, "{model}/{data}.npz", data=("a", "b")) == [
        "m1/{data}.npz",
        "m2/{data}.npz",
    ]
    (one, _) = matches(tmp_path, "*/{data}.npz", data=("a", "b"))
    assert one.default_name() == "m1"
    assert one.fill("{parent}-{stem}", "models") == "m1-m1"
    touch(tmp_path, "net-a.npz")
    (net,) = matches(tmp_path, "net-{data}.npz", data=("a",))
    assert net.default_name() == "net"


def test_data_sets_with_special_names(tmp_path: Path) -> None:
    touch(tmp_path, "m/a*[1].npz", "m/ab1.npz")
    assert paths(tmp_path, "m/{data}.npz", data=("a*[1]",)) == ["m/{data}.npz"]
    assert matches(tmp_path, "{m}/{data}.npz", data=("a*[1]",))[0].captures == {"m": "m"}


def test_layer_is_no_metadata(tmp_path: Path) -> None:
    touch(tmp_path, "net-conv1.npy", "net-conv2.npy")
    found = matches(tmp_path, "{model}-{layer}.npy")
    assert [match.default_name() for match in found] == ["net", "net"]
    assert found[0].metadata() == {"model": "net"}
    assert found[0].captures["layer"] == "conv1"


@pytest.mark.parametrize("name", ["a[1].pt", "a+b (c).pt", "é ü.pt", "{1}.pt", "a\nb.pt", "^$.pt"])
def test_special_characters_are_themselves(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "f[0] + é"
    touch(folder, name, "other.pt", "a1.pt")
    assert paths(folder, name) == [name]
    assert name in paths(folder, "*.pt")
    captured = {match.captures["word"] for match in matches(folder, "{word}.pt")}
    assert name.removesuffix(".pt") in captured


def test_absolute_and_dotted_paths(tmp_path: Path) -> None:
    touch(tmp_path, "zoo/a.pt", "here/x")
    here = tmp_path / "here"
    expected = [str(tmp_path / "zoo/a.pt")]
    assert paths(here, f"{tmp_path}/zoo/*.pt") == expected
    assert paths(here, f"{tmp_path}//zoo/./{{x}}.pt") == expected
    assert paths(here, f"{tmp_path}/here/../zoo/*.pt") == [f"{tmp_path}/here/../zoo/a.pt"]
    assert paths(here, "../zoo/*.pt") == ["../zoo/a.pt"]
    assert paths(here, "../zoo/{x}.pt", "../**/{x}.pt") == ["../zoo/a.pt"] * 2
    assert paths(tmp_path, "./zoo/*.pt") == ["zoo/a.pt"]
    assert paths(tmp_path, "zoo//./*.pt") == ["zoo/a.pt"]
    assert paths(tmp_path, "./zoo/a.pt") == ["zoo/a.pt"]


def test_relative_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "zoo/a.pt")
    monkeypatch.chdir(tmp_path)
    assert paths(Path("."), "zoo/{x}.pt") == ["zoo/a.pt"]
    assert paths(Path("zoo"), "{x}.pt") == ["a.pt"]


def test_no_match(tmp_path: Path) -> None:
    touch(tmp_path, "a.pt")
    with pytest.raises(InputError, match=r"^models: no file matches .*b\*\.pt$"):
        find(["a.pt", "b*.pt"], tmp_path, ["d"], "models")


def test_templates() -> None:
    match = Match("zoo/big/net.v2.pt", {"seed": "3"})
    assert match.fill("{parent}/{stem}#{seed}", "models") == "big/net.v2#3"
    assert fill("{a}{b}", {"a": "{b}", "b": 1}, "models") == "{b}1"
    for template in ("{sed}", "{seed.real}", "{seed[0]}", "{}", "{seed!r}"):
        with pytest.raises(InputError, match=r"models: name .* nothing is called"):
            match.fill(template, "models")


@given(
    words=st.lists(
        st.tuples(*[st.text("ab[]*?+. é-0", min_size=1, max_size=5)] * 2),
        min_size=1,
        max_size=6,
        unique=True,
    )
)
def test_files_are_found_with_what_their_names_say(
    tmp_path_factory: pytest.TempPathFactory, words: list[tuple[str, str]]
) -> None:
    assume(not any(word[0] == "." for pair in words for word in pair))
    folder = tmp_path_factory.mktemp("zoo")
    for x, y in words:
        touch(folder, f"{x}/net_{y}.pt")
    found = matches(folder, "{x}/net_{y}.pt")
    assert {(match.captures["x"], match.captures["y"]) for match in found} == set(words)
    for match in found:
        assert (folder / match.path).is_file()
        assert match.path == "{x}/net_{y}.pt".format(**match.captures)


def models(folder: Path, *entries: dict[str, object]) -> list[str]:
    experiment = Experiment.parse(
        {
            "models": [{"source": "features", **entry} for entry in entries],
            "data": [{"name": "d", "source": "table", "path": "t.csv"}],
            "tasks": [{"name": "t", "data": "d", "target": "y"}],
            "folder": str(folder),
        }
    )
    return [item.name for item in resolve_representations(experiment)]


def test_models_with_equal_names_say_what_to_do(tmp_path: Path) -> None:
    touch(tmp_path, "x/net.npy", "y/net.npy")
    with pytest.raises(InputError, match=r"two models are called 'net'.*\{parent\}-\{stem\}"):
        models(tmp_path, {"path": "*/net.npy"})
    with pytest.raises(InputError, match="two models are called 'net'"):
        models(tmp_path, {"path": "x/net.npy"}, {"path": "y/net.npy"})
    assert models(tmp_path, {"path": "*/net.npy", "name": "{parent}-{stem}"}) == [
        "x-net@output",
        "y-net@output",
    ]


def test_metadata_of_the_entry_wins(tmp_path: Path) -> None:
    touch(tmp_path, "net-1.npy")
    experiment = Experiment.parse(
        {
            "models": [
                {"source": "features", "path": "{a}-{b}.npy", "metadata": {"b": "two", "c": None}}
            ],
            "data": [{"name": "d", "source": "table", "path": "t.csv"}],
            "tasks": [{"name": "t", "data": "d", "target": "y"}],
            "folder": str(tmp_path),
        }
    )
    (found,) = resolve_representations(experiment)
    assert found.metadata == {"a": "net", "b": "two", "c": None}
    assert found.name == "net-1@output"


def test_several_data_sets_need_their_name_in_the_path(tmp_path: Path) -> None:
    touch(tmp_path, "net.npy")
    experiment = Experiment.parse(
        {
            "models": [{"source": "features", "path": "*.npy"}],
            "data": [{"name": name, "source": "table", "path": "t.csv"} for name in "de"],
            "tasks": [{"name": "t", "data": "d", "target": "y", "evaluate": "e"}],
            "folder": str(tmp_path),
        }
    )
    with pytest.raises(InputError, match=r"2 data sets \(d, e\).*needs \{data\}"):
        resolve_representations(experiment)
