"""Protects docs/architecture.md: imports run one way, and the library keeps its hands off what belongs to the user.

The table of rooms is read from the document, so that there is one copy of it. The checkers are tested on snippets at the end.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "bayes_mfg"
# Where a package of the repository's top folder is installed; pyproject.toml says the same to setuptools.
INSTALLED = {"bayes_mfg": "bayes_mfg", "models": "bayes_mfg.models", "inference": "bayes_mfg.inference"}
UNTABLED = {"__init__", "__main__"}  # the front door, which loads rooms on first use, and `python -m bayes_mfg`
COMMAND_LINE = {"cli", "commands"}  # rooms that speak to a person and configure JAX
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
PICKLE_CALLS = {"read_pickle", "to_pickle"}
NUMPYRO_GLOBALS = {"enable_x64", "enable_validation", "set_host_device_count", "set_platform"}


# What the document says


def read_table(text: str) -> dict[str, set[str]]:
    """Rooms and the rooms that each may import, from the Markdown table of docs/architecture.md."""
    says: dict[str, str] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[0].startswith("`"):
            for path in re.findall(r"`([^`]+)`", cells[0]):
                says[Path(path).stem] = cells[-1]
    allowed: dict[str, set[str]] = {}

    def resolve(room: str) -> set[str]:
        if room in allowed:
            return allowed[room]
        text = says[room]
        if text == "everything":
            result = set(says)
        elif text == "nothing":
            result = set()
        else:
            below = text.endswith(" and everything below")
            result = {name.strip() for name in text.removesuffix(" and everything below").split(",")}
            if unknown := result - set(says):
                raise ValueError(
                    f"docs/architecture.md: {room} may import {', '.join(sorted(unknown))}, which is no room of the table."
                )
            if below:
                result |= set().union(*(resolve(name) for name in result))
        allowed[room] = result - {room}
        return allowed[room]

    for room in says:
        resolve(room)
    return allowed


TABLE = read_table((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))


# What the code does


def module_name(path: Path) -> str:
    """Name under which a file of the repository is imported once installed."""
    top, *rest = path.relative_to(ROOT).with_suffix("").parts
    parts = [INSTALLED[top], *rest]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Room of a module; the package's own front door is `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str, bool]]:
    """Every import as (line, full name of what is imported, whether it was written relative), function bodies included."""
    here = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, False
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{source}.{alias.name}", bool(node.level)
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("import_module"):
            names = (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))
            yield from ((node.lineno, name, False) for name in names)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of attributes, empty where it does not start at a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def import_violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports that the table does not allow, and imports of `models` or `inference` under their bare names."""
    room = room_of(module)
    found = []
    for line, name, relative in imports(ast.parse(source), module, is_package):
        at = f"{module}:{line}: {name}"
        parts = name.split(".")
        if parts[0] in INSTALLED and parts[0] != PACKAGE:
            found.append(f"{at} is a bare import; write {INSTALLED[parts[0]]}.")
        if parts[0] != PACKAGE or room in UNTABLED or name == f"{PACKAGE}.__version__":
            continue
        target = room_of(name)
        if target == "__init__":
            found.append(f"{at} imports the whole package; import the room that is needed.")
        elif target not in TABLE:
            found.append(f"{at} is in no room of docs/architecture.md.")
        elif target != room and target not in TABLE[room]:
            found.append(f"{at} is not for {room}, which may import {', '.join(sorted(TABLE[room])) or 'nothing'}.")
        elif target != room and relative:
            found.append(f"{at} crosses into another room with a relative import; write {PACKAGE}.{target}.")
    return found


def pickle_violations(source: str, module: str) -> list[str]:
    """Pickles by any name: reading one runs whatever its author wrote into it."""
    tree = ast.parse(source)
    found = [f"{module}:{line}: {name}" for line, name, _ in imports(tree, module, False) if name.split(".")[0] in PICKLES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in PICKLE_CALLS:
            found.append(f"{module}:{node.lineno}: {node.attr}")
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and getattr(node.value, "value", True) is not False:
            found.append(f"{module}:{node.value.lineno}: allow_pickle")
    return found


def global_violations(source: str, module: str) -> list[str]:
    """Changes of JAX's global configuration, and prints: both belong to the command line alone."""
    if room_of(module) in COMMAND_LINE:
        return []
    tree = ast.parse(source)
    names = {}  # what a local name stands for: {"config": "jax.config"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}

    def full(node: ast.AST) -> str:
        head, _, tail = dotted(node).partition(".")
        return f"{names.get(head, head)}.{tail}".rstrip(".")

    found = []
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Call):
            called = full(node.func)
            if called == "print":
                found.append(f"{module}:{node.lineno}: print")
            elif called in {"jax.config.update", *(f"numpyro.{name}" for name in NUMPYRO_GLOBALS)}:
                found.append(f"{module}:{node.lineno}: {called}")
        elif isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        found += [f"{module}:{node.lineno}: {full(t)}" for t in targets if full(t).startswith("jax.config.")]
    return found


def find(module: str, name: str) -> tuple[str, ast.AST] | None:
    """Where a name of a module is defined, following imports inside the package; None where it comes from outside."""
    path, is_package = path_of(module)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.TypeAlias):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None) or node.name]
            if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                return module, node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    here = module.split(".") if is_package else module.split(".")[:-1]
                    base = here[: len(here) - node.level + 1] if node.level else []
                    source = ".".join([*base, *([node.module] if node.module else [])])
                    if source.split(".")[0] != PACKAGE:
                        return None
                    if path_of(f"{source}.{alias.name}")[0].exists():
                        return f"{source}.{alias.name}", ast.parse(
                            path_of(f"{source}.{alias.name}")[0].read_text(encoding="utf-8")
                        )
                    return find(source, alias.name)
    raise LookupError(f"{module}: {name} stands in __all__ but is defined nowhere.")


def path_of(module: str) -> tuple[Path, bool]:
    """File of a module, and whether it is a package."""
    for top, installed in sorted(INSTALLED.items(), key=lambda item: -len(item[1])):
        if module == installed or module.startswith(installed + "."):
            path = ROOT.joinpath(top, *module[len(installed) :].strip(".").split("."))
            return (path / "__init__.py", True) if path.is_dir() else (path.with_suffix(".py"), False)
    raise LookupError(f"{module} is no module of {PACKAGE}.")


def public_names(source: str) -> list[str]:
    """The literal strings of a module's `__all__`."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return [e.value for e in getattr(node.value, "elts", []) if isinstance(e, ast.Constant)]
    return []


def sources(*folders: str) -> list[Path]:
    """Python files of folders of the repository, in a fixed order."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


LIBRARY = sources(*INSTALLED)
ALL_SOURCES = sources(*INSTALLED, "tests", "examples", "benchmarks")
ROOMS = [path for path in LIBRARY if path.name == "__init__.py" and module_name(path) != PACKAGE]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# The repository keeps the rules


def test_every_folder_of_the_package_is_a_room_of_the_table() -> None:
    rooms = {room_of(module_name(path)) for path in LIBRARY} - UNTABLED
    assert rooms <= set(TABLE), f"not in docs/architecture.md: {sorted(rooms - set(TABLE))}"


def test_the_table_has_no_cycle() -> None:
    core = {room for room, targets in TABLE.items() if targets != set(TABLE) - {room}}
    backward = [(a, b) for a in core for b in TABLE[a] if a in TABLE[b]]
    assert not backward


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    found = import_violations(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_no_global_configuration_and_no_printing(path: Path) -> None:
    if module_name(path) == "bayes_mfg.inference.worker":
        return  # it configures processes that the package makes for itself, and nothing in the user's
    found = global_violations(path.read_text(encoding="utf-8"), module_name(path))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", ALL_SOURCES, ids=name_of)
def test_no_pickles_and_no_bare_models_or_inference(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    bare = [line for line in import_violations(source, f"{PACKAGE}.cli") if "bare import" in line]
    found = pickle_violations(source, name_of(path)) + bare
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", ROOMS, ids=name_of)
def test_public_names_have_docstrings(path: Path) -> None:
    module = module_name(path)
    bare = []
    for name in public_names(path.read_text(encoding="utf-8")):
        place = find(module, name)
        # Constants cannot carry a docstring, and names from outside have their own.
        documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
        if place and isinstance(place[1], documented) and not ast.get_docstring(place[1]):
            bare.append(f"{place[0]}.{name}")
    assert not bare, f"without a docstring: {', '.join(bare)}"


# The checkers see what they should

BREACHES = [
    ("bayes_mfg.games.sir", "from bayes_mfg.equilibrium import solve", "is not for games"),
    ("bayes_mfg.games.sir", "def f():\n    import bayes_mfg.models", "is not for games"),
    ("bayes_mfg.games.sir", "from ..equilibrium.solve import solve", "is not for games"),
    ("bayes_mfg.games.sir", "from ..errors import InputError", "relative import"),
    ("bayes_mfg.games.sir", "from bayes_mfg import inference", "is not for games"),
    ("bayes_mfg.games.sir", "import importlib\nimportlib.import_module('bayes_mfg.models')", "is not for games"),
    ("bayes_mfg.games.sir", "import bayes_mfg", "whole package"),
    ("bayes_mfg.errors", "from bayes_mfg.games import SIR", "may import nothing"),
    ("bayes_mfg.paths.base", "from bayes_mfg.equilibrium import solve", "is not for paths"),
    ("bayes_mfg.models.calibration", "from bayes_mfg.inference import fit", "is not for models"),
    ("bayes_mfg.inference.fit", "from bayes_mfg.cli import main", "is not for inference"),
    ("bayes_mfg.inference.fit", "from bayes_mfg.reproduce import table", "is not for inference"),
    ("bayes_mfg.reproduce.run", "from bayes_mfg.cli import main", "is not for reproduce"),
    ("bayes_mfg.runs", "from bayes_mfg.commands import fit", "is not for runs"),
    ("bayes_mfg.commands.fit", "from bayes_mfg.cli import main", "is not for commands"),
    ("bayes_mfg.inference.fit", "from bayes_mfg.nowhere import x", "no room"),
    ("bayes_mfg.inference.fit", "from models import Calibration", "bare import"),
    ("bayes_mfg.cli", "import inference.fit as f", "bare import"),
]

ALLOWED = [
    ("bayes_mfg.games.sir", "from .base import Game\nfrom . import base\nfrom bayes_mfg.errors import InputError\nimport jax"),
    ("bayes_mfg.models.calibration", "from bayes_mfg.paths import Path\nfrom bayes_mfg.data import Population"),
    ("bayes_mfg.inference.report", "from bayes_mfg import __version__\nfrom bayes_mfg.games import Game\nfrom .models import x"),
    (
        "bayes_mfg.reproduce.run",
        "from .systems import SYSTEMS\nfrom bayes_mfg.inference import fit\nfrom bayes_mfg.config import read",
    ),
    (
        "bayes_mfg.commands.fit",
        "from .places import saved_fit\nfrom bayes_mfg.runs import again\nfrom bayes_mfg.reproduce import table",
    ),
    ("bayes_mfg.cli", "from bayes_mfg import inference, models, reproduce\nfrom bayes_mfg.config import read"),
]


@pytest.mark.parametrize(("module", "source", "message"), BREACHES)
def test_a_forbidden_import_is_seen(module: str, source: str, message: str) -> None:
    (found,) = import_violations(source, module)
    assert message in found


@pytest.mark.parametrize(("module", "source"), ALLOWED)
def test_an_allowed_import_is_left_alone(module: str, source: str) -> None:
    assert import_violations(source, module) == []


def test_relative_imports_of_a_package_start_at_itself() -> None:
    assert import_violations("from .base import Game", "bayes_mfg.games", is_package=True) == []
    assert len(import_violations("from ..models import Calibration", "bayes_mfg.games", is_package=True)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "print('x')",
        "import jax\njax.config.update('jax_enable_x64', True)",
        "import jax as j\ndef f():\n    j.config.update('jax_enable_x64', True)",
        "from jax import config\nconfig.update('jax_enable_x64', True)",
        "from jax import config as c\nc.jax_enable_x64 = True",
        "import numpyro\nnumpyro.enable_x64()",
        "from numpyro import set_host_device_count as n\nn(4)",
    ],
)
def test_a_global_change_is_seen_outside_the_command_line(source: str) -> None:
    assert len(global_violations(source, "bayes_mfg.inference.fit")) == 1
    assert all(global_violations(source, f"{PACKAGE}.{room}") == [] for room in COMMAND_LINE)


def test_other_updates_are_left_alone() -> None:
    source = (
        "import jax\nconfig = {}\nconfig.update(a=1)\nself.print('x')\nx = jax.config.y\nwith jax.enable_x64(True):\n    pass"
    )
    assert global_violations(source, "bayes_mfg.inference.fit") == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import cloudpickle as c",
        "pd.read_pickle('x')",
        "np.load('x', allow_pickle=True)",
    ],
)
def test_a_pickle_is_seen(source: str) -> None:
    assert len(pickle_violations(source, "m")) == 1


def test_loading_without_pickles_is_left_alone() -> None:
    assert pickle_violations("np.load('x', allow_pickle=False)", "m") == []


def test_a_table_that_cannot_be_read_is_refused() -> None:
    rows = [
        "| room | may import |",
        "| --- | --- |",
        "| `a.py` | nothing |",
        "| `b/` | {} |",
        "| `c/` | b and everything below |",
    ]
    table = "\n".join([*rows, "| `d.py` | everything |"])
    assert read_table(table.format("a")) == {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a", "b", "c"}}
    with pytest.raises(ValueError, match="no room of the table"):
        read_table(table.format("whatever it likes"))


def test_names_that_are_defined_nowhere_are_seen() -> None:
    assert public_names("__all__ = ['a', 'b']") == ["a", "b"]
    with pytest.raises(LookupError, match="defined nowhere"):
        find(f"{PACKAGE}.games", "NoSuchGame")
