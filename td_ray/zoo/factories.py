"""Factories: the functions, named ``package.module:function``, that build networks.

The module lies beside the experiment or is installed; one beside the experiment wins. It may
import its neighbours, by their names or (inside a package) relatively, at the top or inside the
factory. Modules from beside the experiment are loaded anew for each model and forgotten after
it, so that two experiments may both have a ``networks.py``. What does not work: imports that
happen later, in ``forward``, and a neighbour with the name of a module of Python's own.

The code's identity covers the factory's file and the files it imports from the same folder,
followed through ``import`` statements without running them; for an installed factory, its file
and the version of its package.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from td_ray.errors import InputError, WorkError
from td_ray.files import fingerprint, one_line, reading, sha256
from td_ray.registry import closest

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Factory:
    """A factory that was found, not imported.

    Attributes:
        module: its dotted name.
        root: the folder where that name starts.
        file: the module's file.
    """

    module: str
    function: str
    root: Path
    file: Path

    @property
    def text(self) -> str:
        """As the experiment writes it."""
        return f"{self.module}:{self.function}"

    def code_identity(self) -> str:
        """Identity of the code that the factory's file and its neighbours hold.

        Raises:
            InputError: a file that is not Python.
        """
        files = {self.module: self.file}
        left = [] if self._is_installed else [self.module]
        while left:
            name = left.pop()
            for other in _imports(name, files[name]):
                file = _file_of(other, self.root)
                if file is not None and other not in files:
                    files[other] = file
                    left.append(other)
        digests = {name: sha256(file) for name, file in files.items()}
        return fingerprint([digests, self._version()])

    def check(self) -> None:
        """Find a misspelt function without running the module.

        Raises:
            InputError: the module is not Python, or defines nothing of that name.
        """
        names = _defined(_parse(self.file))
        if names is not None and self.function not in names:
            hint = closest(self.function, names)
            raise InputError(f"factory '{self.text}': {self.file} has no '{self.function}': {hint}")

    def build(self, arguments: Mapping[str, Any], folder: Path) -> nn.Module:
        """Import the module and call the factory.

        Raises:
            WorkError: the import or the call fails, or gives something else than a module.
        """
        from torch import nn

        try:
            with _own_modules(self.root if self.root == folder else None):
                built = getattr(importlib.import_module(self.module), self.function)(**arguments)
        except (Exception, SystemExit) as error:  # the user's code can raise anything
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise WorkError(f"factory '{self.text}' failed: {reason}") from error
        if not isinstance(built, nn.Module):
            kind = type(built).__name__
            raise WorkError(f"factory '{self.text}' returned a {kind}, not an nn.Module")
        return built

    @property
    def _is_installed(self) -> bool:
        return bool({"site-packages", "dist-packages"} & set(self.file.parts))

    def _version(self) -> str | None:
        with suppress(PackageNotFoundError):
            return version(self.module.partition(".")[0]) if self._is_installed else None
        return None


def find_factory(text: str, folder: Path) -> Factory:
    """Find a factory's file without importing anything.

    Raises:
        InputError: not ``package.module:function``, or no such module.
    """
    module, _, function = text.partition(":")
    words = module.split(".")
    if not function.isidentifier() or not all(word.isidentifier() for word in words):
        raise InputError(f"factory '{text}' is not of the form package.module:function")
    file = _file_of(module, folder)
    if file is not None:
        return Factory(module, function, folder, file)
    for root in _installed_roots(words[0]):
        file = _file_of(module, root)
        if file is not None:
            return Factory(module, function, root, file)
    local = folder.joinpath(*words).with_suffix(".py")
    raise InputError(f"factory '{text}': no module '{module}', neither installed nor as {local}")


def _installed_roots(package: str) -> list[Path]:
    spec = find_spec(package) if package != "__main__" else None
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place).parent for place in spec.submodule_search_locations]
    return [Path(spec.origin).parent] if spec.origin else []


def _file_of(module: str, root: Path) -> Path | None:
    """The file of a dotted name that starts in ``root``."""
    place = root.joinpath(*module.split("."))
    for file in (place / "__init__.py", place.with_name(place.name + ".py")):
        if file.is_file():
            return file
    return None


def _parse(file: Path) -> ast.Module:
    with reading(file, "factory"):
        return ast.parse(file.read_bytes())


def _imports(module: str, file: Path) -> tuple[str, ...]:
    """All names that may be modules which a file imports; packages on the way are left out."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    status = file.stat()
    return _names_in(file, package, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=1024)
def _names_in(file: Path, package: str, stamp: tuple[int, int]) -> tuple[str, ...]:
    """The names after ``import``; ``stamp`` makes a file that has changed be read again."""
    return tuple(name for name in _names(_parse(file), package) if name)


def _names(tree: ast.Module, package: str) -> Iterator[str]:
    for node in _that_run(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(word for word in (*above, base) if word)
            yield base
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def _that_run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers look at."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from _that_run(other)
        else:
            yield from _that_run(child)


def _defined(tree: ast.Module) -> set[str] | None:
    """Names that a module may define; None where only running it would tell."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return None if names & {"*", "__getattr__"} else names


@contextmanager
def _own_modules(folder: Path | None) -> Iterator[None]:
    """Let imports find a folder's modules first, and forget them afterwards.

    Modules of the same names from elsewhere are put aside meanwhile.
    """
    if folder is None:
        yield
        return
    folder = folder.absolute()
    here = {file.stem for file in folder.glob("*.py")}
    here |= {file.parent.name for file in folder.glob("*/__init__.py")}
    here -= sys.stdlib_module_names
    foreign = {name for name in here & set(sys.modules) if not _lies_in(sys.modules[name], folder)}
    before = {
        name: module for name, module in sys.modules.items() if name.partition(".")[0] in foreign
    }
    kept = set(sys.modules) - set(before)
    for name in before:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - kept:
            if _lies_in(sys.modules[name], folder):
                del sys.modules[name]
        sys.modules.update(before)


def _lies_in(module: Any, folder: Path) -> bool:
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    return any(place and Path(place).is_relative_to(folder) for place in places)
