"""What transformers reads of a repository: a configuration, weights, what prepares inputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase

from td_ray.needs import NeededSnapshot

# Weights, as transformers names them; PyTorch's own format is read where there are no safetensors.
_SAFE = ["model.safetensors", "model-*.safetensors"]
_OLD = ["pytorch_model.bin", "pytorch_model-*.bin"]

# Configurations, lists of shards and of words, and the models of the kinds of tokenizers.
_SMALL = ["*.json", "*.txt", "*.model", "*.spm", "*.tiktoken", "*.codes", "*.jinja"]


@dataclass(frozen=True)
class NeededModel(NeededSnapshot):
    """The files of a model that transformers reads, and not those of every other framework.

    Attributes:
        code: whether Python files are wanted too.
    """

    code: bool = False

    def patterns(self) -> tuple[list[str], list[str]]:
        """See ``NeededSnapshot``; weights come in two formats, and one of them is enough."""
        return [*_SMALL, *(["*.py"] if self.code else [])], ["*/*"]

    def patterns_to_fetch(self, names: list[str]) -> tuple[list[str], list[str]]:
        """See ``NeededSnapshot``; safetensors, or PyTorch's own format where there are none."""
        allowed, ignored = self.patterns()
        is_safe = any(fnmatchcase(name, pattern) for name in names for pattern in _SAFE)
        return [*allowed, *(_SAFE if is_safe else _OLD)], ignored

    def lack(self) -> str | None:
        """See ``Needed``; a configuration and all weights, whoever placed them there."""
        lack = super().lack()
        absent = None if lack else self._absent()
        return self.not_whole(f"no {absent}") if absent else lack

    def _absent(self) -> str | None:
        """The first file without which there is no model."""
        if not (self.place / "config.json").is_file():
            return "config.json"
        for name in (_SAFE[0], _OLD[0]):
            if (self.place / name).is_file():
                return None
            index = self.place / f"{name}.index.json"
            if index.is_file():
                shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
                return next((file for file in shards if not (self.place / file).is_file()), None)
        return _SAFE[0]
