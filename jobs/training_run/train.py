"""Train a small network on scikit-learn's digits and keep a checkpoint of every epoch.

python jobs/training_run/train.py
"""

from pathlib import Path

import torch
from networks import build
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

EPOCHS = 12


def main() -> None:
    """Write checkpoints/epoch-00.safetensors (untrained) to epoch-12."""
    folder = Path(__file__).parent / "checkpoints"
    folder.mkdir(exist_ok=True)
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    torch.manual_seed(0)
    network = build()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for epoch in range(EPOCHS + 1):
        save_file(network.state_dict(), folder / f"epoch-{epoch:02d}.safetensors")
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    print(f"{EPOCHS + 1} checkpoints in {folder}")


if __name__ == "__main__":
    main()
