"""Optional libraries: what planning says where one is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from td_ray.errors import InputError
from td_ray.registry import MODEL_SOURCES


@pytest.mark.parametrize(
    ("source", "library", "entry"),
    [
        ("huggingface", "transformers", {"model": "./x"}),
        ("onnx", "onnxruntime", {"path": "a.onnx"}),
        ("timm", "timm", {"model": "resnet18"}),
    ],
)
def test_a_library_that_is_not_installed(
    source: str,
    library: str,
    entry: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "td_ray.zoo.libraries.find_spec", lambda name: None if name == library else object()
    )
    model = MODEL_SOURCES.get(source)(source=source, **entry)
    with pytest.raises(InputError) as caught:
        model.expand(tmp_path, ["d"], tmp_path)
    assert str(caught.value) == (
        f"models, source '{source}' needs the library {library}: pip install 'td-ray[{source}]'"
    )
