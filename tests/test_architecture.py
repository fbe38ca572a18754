"""The house keeps its shape: imports go down, rooms stay small, heavy libraries stay inside."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "td_ray"

# Ground floor first. A room imports itself and the rooms before it.
ROOMS = [
    "errors",
    "printable",
    "registry",
    "files",
    "storage",
    "ending",
    "yaml_files",
    "needs",
    "versions",
    "memory",
    "validation_errors",
    "costs",
    "spec",
    "tasks",
    "zoo",
    "features",
    "extraction",
    "heads",
    "head_kinds",
    "measures",
    "inference",
    "arrays",
    "results",
    "plan",
    "work",
    "nearest",
    "compact",
    "sweep",
    "launch",
    "report",
    "demo",
    "bench",
    "listing",
    "terminal",
    "cli",
    "testing",
]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Full names of what a module imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":  # the public surface imports every room it shows
        return
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    for name in imports(path):
        if name.startswith("td_ray."):
            imported = name.split(".")[1]
            assert imported in allowed, f"{room} imports {imported}, which is above it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path)}
    room = room_of(path)
    if room not in ("sweep", "launch"):
        assert "ray" not in tops
    if room in ("heads", "measures", "inference"):
        assert not tops & {"pathlib", "os", "pyarrow", "pandas", "pydantic"}
    if room != "report":
        assert "plotly" not in tops


def test_modules_are_short() -> None:
    long = {str(path): lines for path in modules() if (lines := path.read_text().count("\n")) > 400}
    assert not long


def test_tasks_of_ray_start_without_torch_and_tune() -> None:
    modules = "td_ray.sweep.cache_actor, td_ray.sweep.tasks, td_ray.work.extracting"
    modules += ", td_ray.zoo.feature_arrays"
    script = f"import sys, {modules}; assert not {{'torch', 'ray.tune'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


CODE_FROM_FILES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pd.read_pickle"}
RUNS_FILES = {"torch.hub.load", "torch.jit.load", "torch.export.load"}
SAID_WHERE_CALLED = {
    "torch.load": ("weights_only", "True"),
    "np.load": ("allow_pickle", "False"),
    "np.lib.format.read_array": ("allow_pickle", "False"),
    "NpzFile": ("allow_pickle", "False"),
    "yaml.load": ("Loader", "_Loader"),  # a SafeLoader
}
FALSE_WHEREVER_SAID = ("allow_pickle", "trust_remote_code", "shell")
MAY_PICKLE = {"testing/data_sources.py"}  # what it has just written itself, to see that it travels


def dangers(path: Path) -> list[str]:
    """What could run code that comes with a file."""
    found = [name for name in imports(path) if name.split(".")[0] in CODE_FROM_FILES]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        name, value = SAID_WHERE_CALLED.get(called, ("", None))
        is_loose = given.get(name) != value
        is_loose |= any(given.get(each, "False") != "False" for each in FALSE_WHEREVER_SAID)
        is_unsafe = called in RUNS_TEXT | RUNS_FILES
        if is_unsafe or is_loose or called.startswith(("yaml.unsafe", "yaml.full")):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_data(path: Path) -> None:
    if str(path.relative_to(PACKAGE)) not in MAY_PICKLE:
        assert dangers(path) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "pd.read_pickle(path)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "torch.hub.load(name)",
    ],
)
def test_what_runs_code_is_noticed(line: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(line)
    assert dangers(tmp_path / "module.py")


@pytest.mark.parametrize(
    "command", [["--help"], ["plan", "experiment.yaml"], ["status", "experiment.yaml"]]
)
def test_planning_imports_neither_torch_nor_ray(command: list[str], tmp_path: Path) -> None:
    from small_zoo import content, write_zoo

    from td_ray import yaml_files

    write_zoo(tmp_path)
    heads = ["logistic", "ridge", {"kind": "mlp", "hidden": [8, 16]}]
    (tmp_path / "experiment.yaml").write_text(yaml_files.write(content(heads=heads)))
    script = (
        "import sys\n"
        f"sys.argv = ['td-ray', *{command!r}]\n"
        "from td_ray.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'torch', 'torchvision', 'ray', 'numba', 'sklearn', 'plotly'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
