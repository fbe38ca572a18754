"""The folder of a small checkpoint and its factory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_checkpoints import FACTORY, network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(FACTORY)
    torch.save(network().state_dict(), tmp_path / "a.pt")
    return tmp_path
