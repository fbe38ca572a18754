"""Folders of images: labels from folder names, colours as they look, damaged files by name."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from td_ray.errors import InputError, SkippedSamplesWarning, WorkError
from td_ray.extraction.networks import run_network
from td_ray.files import DigestMemory
from td_ray.spec import Experiment
from td_ray.tasks.dataset import DataSet
from td_ray.tasks.image_folder import ImageFolder
from td_ray.tasks.images import decode
from td_ray.zoo.torch_network import TorchNetwork

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def write(path: Path, colour: Any = RED, size: tuple[int, int] = (4, 3), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def source(**options: Any) -> ImageFolder:
    values = {"source": "image_folder", "name": "pets", "path": "images", **options}
    return ImageFolder.model_validate(values)


def load(folder: Path, **options: Any) -> DataSet:
    return source(**options).load(folder, folder / "cache")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for number in range(4):
        write(tmp_path / f"images/cat/{number}.png", (number, 0, 0))
        write(tmp_path / f"images/dog/deep/{number}.JPG", (200, 200, 200), size=(5, 2 + number))
    return tmp_path


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def run(data: DataSet, batch_size: int = 3) -> NDArray[np.float32]:
    """Mean brightness of each image, through the extraction that networks go through."""

    def prepare(block: Any) -> torch.Tensor:
        return torch.tensor([[float(image.mean())] for image in block])

    network = TorchNetwork(nn.Identity(), ["output"], prepare=prepare, device="cpu", who="mean")
    blocks = list(run_network(network, data.inputs, batch_size, "mean"))
    return np.concatenate([block["output"] for block in blocks])


def test_labels_ids_and_images(pets: Path) -> None:
    data = load(pets, stratify="label")
    assert data.ids.tolist()[:4] == ["cat/0.png", "cat/1.png", "cat/2.png", "cat/3.png"]
    assert data.ids.tolist()[4] == "dog/deep/0.JPG"
    assert data.column("label", "task").tolist() == ["cat"] * 4 + ["dog"] * 4
    block = data.inputs[0:2]
    assert isinstance(block, np.ndarray)
    assert block.shape == (2, 3, 4, 3)
    assert block.dtype == np.uint8
    assert block[1, 0, 0].tolist() == [1, 0, 0]
    mixed = data.inputs[3:6]
    assert isinstance(mixed, list)
    assert [image.shape for image in mixed] == [(3, 4, 3), (2, 5, 3), (3, 5, 3)]
    assert run(data).shape == (8, 1)


def test_what_is_no_image_is_left_out(pets: Path) -> None:
    expected = load(pets).ids.tolist()
    (pets / "images/cat/notes.txt").write_text("x")
    (pets / "images/README.md").write_text("x")
    (pets / "images/cat/.DS_Store").write_text("x")
    write(pets / "images/cat/._1.png")
    write(pets / "images/.git/1.png")
    write(pets / "images/dog/.thumbnails/1.png")
    assert load(pets).ids.tolist() == expected


def test_split_folders(tmp_path: Path) -> None:
    for name in ("train/cat/1", "train/dog/1", "test/cat/1", "test/dog/2"):
        write(tmp_path / f"images/{name}.png")
    data = load(tmp_path, split_folders=True)
    assert data.evaluation_ids.tolist() == ["test/cat/1.png", "test/dog/2.png"]
    assert data.column("label", "task").tolist() == ["cat", "dog", "cat", "dog"]
    assert source(split_folders=True).split.column == "split"
    drawn = load(tmp_path, split_folders=True, split={"test": 0.5, "seed": 3})
    assert drawn.evaluation.sum() == 2


def test_the_split_of_folders_survives_the_written_experiment(tmp_path: Path) -> None:
    entry = {"name": "p", "source": "image_folder", "path": "x", "split_folders": True}
    content = {
        "models": [{"source": "features", "path": "f.npy"}],
        "data": [entry],
        "tasks": [{"name": "t", "data": "p", "target": "label"}],
    }
    experiment = Experiment.parse(content)
    (tmp_path / "experiment.yaml").write_text(experiment.to_yaml())
    assert Experiment.load(tmp_path).data == experiment.data


def test_colours_and_rotation(tmp_path: Path) -> None:
    def decoded(image: Image.Image, name: str, **options: Any) -> NDArray[np.uint8]:
        image.save(tmp_path / name, **options)
        return decode((tmp_path / name).read_bytes())

    half = Image.new("RGBA", (2, 1), (0, 0, 255, 255))
    half.putpixel((1, 0), (0, 0, 0, 0))
    assert decoded(half, "a.png").tolist() == [[[0, 0, 255], [255, 255, 255]]]
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    assert decoded(palette, "p.png").tolist() == [[list(RED), list(GREEN)]]
    assert decoded(palette, "t.gif", transparency=1).tolist() == [[list(RED), [255] * 3]]
    assert decoded(Image.new("L", (1, 1), 7), "g.png").tolist() == [[[7, 7, 7]]]
    deep = Image.fromarray(np.array([[0, 256 * 100, 65535]], dtype=np.uint16))
    assert decoded(deep, "d.png")[0, :, 0].tolist() == [0, 100, 255]
    wide = Image.new("RGB", (4, 2), BLUE)
    wide.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: upright after a quarter turn clockwise
    upright = decoded(wide, "e.png", exif=exif)
    assert upright.shape == (4, 2, 3)
    assert upright[0, 1].tolist() == list(RED)


def test_damaged_images_fail_the_models_that_meet_them(pets: Path) -> None:
    for name in ("cat/2.png", "dog/deep/1.JPG"):
        damage(pets / "images" / name)
    data = load(pets)  # planning does not decode
    words = r"2 of 8 images in .*images cannot be decoded .*cat/2\.png, dog/deep/1\.JPG; replace"
    with pytest.raises(WorkError, match=words):
        run(data)


def test_programs_in_postscript_are_no_images(pets: Path) -> None:
    """Pillow knows the format, and would start Ghostscript to run what is in the file."""
    from PIL import Image

    with (pets / "images/cat/1.png").open("wb") as file:
        Image.new("RGB", (4, 3)).save(file, format="EPS")
    with Image.open(pets / "images/cat/1.png") as image:
        assert image.format == "EPS"
    with pytest.raises(WorkError, match=r"1 of \d images .* cannot be decoded"):
        run(load(pets))


def test_many_damaged_images_are_counted(pets: Path) -> None:
    for number in range(20):
        (pets / f"images/cat/x{number:02d}.png").write_bytes(b"")
    with pytest.raises(WorkError, match=r"20 of 28 images .*cat/x07\.png and 12 more; ") as caught:
        run(load(pets))
    assert "x08" not in str(caught.value)


def test_a_file_that_went_away_is_the_machines_trouble(pets: Path) -> None:
    data = load(pets)
    (pets / "images/cat/0.png").unlink()
    with pytest.raises(FileNotFoundError):
        _ = data.inputs[0:1]


def test_damaged_images_are_skipped_on_request(pets: Path) -> None:
    damage(pets / "images/cat/2.png")
    with pytest.warns(SkippedSamplesWarning, match=r"1 of 8 images .* left out: cat/2\.png"):
        data = load(pets, corrupted="skip")
    assert data.n == 7
    assert "cat/2.png" not in data.ids
    assert len(run(data)) == 7
    write(pets / "images/cat/2.png")  # repaired: it is tried again
    assert load(pets, corrupted="skip").n == 8


def test_images_are_tried_once(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(pets, corrupted="skip").n == 8
    tried: list[bytes] = []
    monkeypatch.setattr("td_ray.tasks.images.decode", tried.append)
    assert load(pets, corrupted="skip").n == 8
    assert not tried
    write(pets / "images/dog/new.png")
    assert load(pets, corrupted="skip").n == 9
    assert len(tried) == 1
    (record,) = (pets / "cache/images").iterdir()
    record.write_text("{")
    assert load(pets, corrupted="skip").n == 9
    assert len(tried) == 10


def test_identity_changes_with_any_image(pets: Path) -> None:
    digest = DigestMemory(pets / "cache").computed
    before = source().inputs_identity(pets, digest)
    assert source().inputs_identity(pets, digest) == before
    path = pets / "images/cat/0.png"
    times = path.stat()
    write(path, (9, 9, 9))
    assert source().inputs_identity(pets, digest) != before
    write(path, (0, 0, 0))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    assert source().inputs_identity(pets, digest) == before  # the bytes decide, not the time
    # what is not remembered is read for a plan only where it is small
    assert source().inputs_identity(pets, DigestMemory(pets / "other").known) == before


def test_a_folder_of_many_files_is_one_look_up(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2_000):
            (tmp_path / f"images/{name}/{number}.png").write_bytes(b"%d" % number)
    memory = DigestMemory(tmp_path / "cache")
    known = source().inputs_identity(tmp_path, memory.computed)
    start = time.perf_counter()
    assert source().inputs_identity(tmp_path, memory.known) == known
    assert time.perf_counter() - start < 1  # 0.04 s where nothing else runs
    assert len(list((tmp_path / "cache/digests").iterdir())) == 1


def test_readers_are_small(pets: Path) -> None:
    inputs = load(pets).inputs
    again = pickle.loads(pickle.dumps(inputs))
    assert np.array_equal(again[0:2], inputs[0:2])


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ("", {"path": "nowhere"}, r"data set 'pets': no folder at .*nowhere"),
        ("empty", {"path": "empty"}, r"empty has no class folders with images .*empty/cat/1\.jpg"),
        ("images/bird", {}, r"the class folder .*images/bird holds no images; fill or delete it"),
        ("images/a.png", {}, r"images/a\.png lies in no folder of a class, so it has no label"),
        ("", {"split_folders": True, "path": "images/dog"}, r"dog/deep/\d\.JPG lies in no folder"),
        ("", {"split_folders": True}, r"cat/\d\.png lies in no folder of a class"),
        ("", {"stratify": "kind"}, r"no column 'kind' to stratify by: known: label"),
        ("images/cat/\udcff.png", {}, r"the name of .*udcff\.png' is no text; rename it"),
    ],
)
def test_bad_folders(pets: Path, change: str, options: dict[str, Any], words: str) -> None:
    if change.endswith(".png"):
        (pets / change).write_bytes(b"")
    elif change:
        (pets / change).mkdir()
    with pytest.raises(InputError, match=words):
        load(pets, **options)


def test_nothing_can_be_decoded(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        damage(write(tmp_path / f"images/{name}/1.png"))
    with pytest.raises(InputError, match=r"none of the 2 images in .* can be decoded"):
        load(tmp_path, corrupted="skip")
