"""Weights in files: read as data, never as code, and their keys brought to those of a module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from td_ray.errors import WorkError
from td_ray.files import one_line

if TYPE_CHECKING:
    from torch import Tensor

KEYS = ("state_dict", "model_state_dict", "model")
"""Where training loops put the weights inside a checkpoint."""

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every key."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict; never runs code that a file carries.

    Raises:
        WorkError: cut short, or something else than tensors by name.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, ValueError, RuntimeError) as error:
        raise WorkError(f"checkpoint {path} cannot be read: {one_line(error)}") from None
    except Exception as error:  # pickle.UnpicklingError: a file that wants to run code, or garbage
        raise WorkError(
            f"checkpoint {path} is not a plain state dict: {one_line(error, 160)}; "
            "save module.state_dict(), best as safetensors"
        ) from None
    if isinstance(weights, dict):
        inner = [weights[key] for key in KEYS if isinstance(weights.get(key), dict)]
        weights = inner[0] if inner else weights
    if not isinstance(weights, dict):
        raise WorkError(f"checkpoint {path} holds a {type(weights).__name__}, not a state dict")
    for name in weights:
        if not isinstance(name, str):
            raise WorkError(f"checkpoint {path} is no state dict: it has the key {name!r}")
    return weights


def below(weights: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    """The weights whose keys start with a prefix, without it.

    Raises:
        WorkError: there are none.
    """
    found = {name[len(prefix) :]: weights[name] for name in weights if name.startswith(prefix)}
    if not found:
        some = ", ".join(f"'{name}'" for name in list(weights)[:3])
        raise WorkError(
            f"checkpoint {path} has no key that starts with the prefix '{prefix}'; "
            f"its keys are such as {some or 'none at all'}"
        )
    return found


def unwrapped(weights: dict[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """Without the prefixes of wrappers, if the keys are then those that are expected."""
    stripped = weights
    while stripped and set(stripped) != set(expected):
        for prefix in WRAPPERS:
            if all(name.startswith(prefix) for name in stripped):
                stripped = {name[len(prefix) :]: stripped[name] for name in stripped}
                break
        else:
            return weights
    return stripped
