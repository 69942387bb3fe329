"""Protects the packaging: what pyproject.toml lists is what the repository holds, and what is installed is found from anywhere.

That a wheel works on its own is shown by .ci/run, which builds one and runs the demo from it outside the repository.
"""

import ast
import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
PROJECT = PYPROJECT["project"]
FOLDERS = {folder: name for name, folder in SETUPTOOLS["package-dir"].items()}


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in a folder, without the folder on its path."""
    return subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)


def package_of(path: Path) -> str:
    top, *rest = path.relative_to(ROOT).parts[:-1]
    return ".".join([FOLDERS[top], *rest])


def shipped() -> list[Path]:
    return [p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts]


def test_every_folder_with_code_is_in_the_wheel() -> None:
    assert {package_of(p) for p in shipped() if p.suffix == ".py"} == set(SETUPTOOLS["packages"])


def test_every_data_file_is_in_the_wheel() -> None:
    patterns = SETUPTOOLS["package-data"]["*"]
    left_out = [
        str(p.relative_to(ROOT))
        for p in shipped()
        if p.suffix != ".py"
        and not (package_of(p) in SETUPTOOLS["packages"] and any(fnmatch.fnmatch(p.name, pattern) for pattern in patterns))
    ]
    assert not left_out


def test_models_and_inference_install_under_the_package(tmp_path: Path) -> None:
    done = run(
        "import bayes_mfg.models, bayes_mfg.inference; print(bayes_mfg.models.__name__, bayes_mfg.inference.__name__)", tmp_path
    )
    assert done.stdout.split() == ["bayes_mfg.models", "bayes_mfg.inference"], done.stderr


@pytest.mark.parametrize("name", ["models", "inference"])
def test_bare_names_are_not_taken_from_others(name: str, tmp_path: Path) -> None:
    done = run(f"import {name}", tmp_path)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_importing_the_package_does_not_start_jax(tmp_path: Path) -> None:
    """The command line must be able to set JAX up before it starts."""
    done = run("import sys, bayes_mfg; print('jax' in sys.modules, bayes_mfg.__version__)", tmp_path)
    assert done.stdout.split() == ["False", PROJECT["version"]], done.stderr


def test_constraints_hold_versions_only_and_cover_the_dependencies() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    pinned = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version), (
            f"constraints.txt has {requirement.name}=={version}, pyproject.toml wants {requirement}"
        )


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    imported = set()
    for path in shipped():
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                imported |= {name.partition(".")[0] for name in names}
    others = imported - set(sys.stdlib_module_names) - {"bayes_mfg"}
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    # jaxlib is what jax runs on; h5py and h5netcdf are how xarray writes netCDF.
    assert {canonicalize_name(name) for name in others} == declared - {"jaxlib", "h5py", "h5netcdf"}


def test_arviz_may_be_imported_first(tmp_path: Path) -> None:
    """It registers NumPyro lazily, which leaves `numpyro.distributions` incomplete where that is imported next."""
    code = (
        "import arviz\nimport numpyro.distributions as dist\nimport numpyro\nimport bayes_mfg as bm\nbm.paths\n"
        "from numpyro.infer.util import potential_energy\n"
        "model = lambda: numpyro.sample('x', dist.LogNormal(0.0, 1.0))\n"
        "print(float(potential_energy(model, (), {}, {'x': 0.5})))"
    )
    result = run(code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) == pytest.approx(1.0439, abs=1e-3)
