"""The wheel: small, whole, and enough for what the README shows."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import stand_ins
from tests.docs.commands import commands
from tests.docs.pages import ROOT, blocks

SOURCE = ROOT / "src" / "jernih"
EXTRAS = {"serve", "dicom", "onnx", "hub", "ray", "bench", "docs", "dev"}
SMALL = [
    "sample.source.images=160", "sample.source.size=32", "sample.split.val=0.3",
    "modify.size=32", "model.classifier_training.epochs=1", "model.purifier_training.epochs=1",
]  # fmt: skip
"""The embedded default in less than a minute."""


def run(command: list[str], folder: Path, **more: str) -> str:
    """Run a command without what this process' environment adds; what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(  # noqa: S603 - the tests' own commands
        command, cwd=folder, env=kept | more, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and source archive, built from the checkout without a network."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    options = ["--no-isolation", "--wheel", "--sdist", "--outdir", str(folder)]
    paths = os.pathsep.join(path for path in sys.path if path and Path(path).is_dir())
    run([sys.executable, "-m", "build", *options, str(ROOT)], folder, PYTHONPATH=paths)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def test_the_wheel_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size < 25e6
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        f"jernih/{path.relative_to(SOURCE).as_posix()}"
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected
    for needed in (
        "py.typed", "shipped/jernih-s-imagenet.safetensors", "shipped/jernih-s-imagenet.json",
        "shipped/jernih-s-chest-xray.safetensors", "assess/templates/report.html.j2",
    ):  # fmt: skip
        assert f"jernih/{needed}" in names


def test_what_the_wheel_says_of_itself(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (place,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        said = archive.read(place).decode("utf-8")
        assert any("licenses/LICENSE" in name for name in archive.namelist())
    assert set(re.findall(r"^Provides-Extra: (\S+)", said, re.MULTILINE)) == EXTRAS
    assert "Requires-Python: >=3.11" in said
    assert "# Jernih" in said


def test_the_source_archive_has_no_runs_and_no_weights_but_the_shipped(dist: Path) -> None:
    (found,) = dist.glob("*.tar.gz")
    assert found.stat().st_size < 25e6
    with tarfile.open(found) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"src/jernih/py.typed", "tests/test_wheel.py", "docs/index.md", "LICENSE"} <= names
    left_out = ("weights/", "benchmarks/results/", "runs/", "shared/", "build/", ".venv/")
    assert not [name for name in names if name.startswith(left_out)]
    weights = {name for name in names if name.endswith(".safetensors")}
    assert {Path(name).parent.as_posix() for name in weights} == {"src/jernih/shipped"}


def imported(file: Path) -> set[str]:
    """The packages that a module imports, here and in its functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"jernih"}


def distribution(requirement: str) -> str:
    """The name of a requirement's distribution, as registries compare names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[><=!~; ]", requirement)[0]).lower()


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) == EXTRAS
    wanted = [*project["dependencies"]]
    for extra in EXTRAS - {"bench", "docs", "dev"}:
        wanted += project["optional-dependencies"][extra]
    declared = {distribution(one) for one in wanted}
    installed = importlib.metadata.packages_distributions()
    names = set().union(*(imported(file) for file in SOURCE.rglob("*.py")))
    lacking = {
        name
        for name in names
        if importlib.util.find_spec(name) is not None
        and not declared & {distribution(one) for one in installed.get(name, [name])}
    }
    assert lacking == set()
    assert {"torch", "timm", "pydicom"} <= names, "the search itself is broken"


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The programs of an environment with the wheel and what it asks for, from the registry."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    run([str(folder / "bin" / "pip"), "install", "--quiet", str(wheel)], folder)
    yield folder / "bin"
    shutil.rmtree(folder)  # some 6 GB


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with what a user has: images and photographs, no checkout."""
    stand_ins.own_images(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_wheel_alone_runs_the_readme(clean: Path, desk: Path) -> None:
    """All of its lines that need neither a checkout nor somebody's data nor an extra."""
    path = f"{clean}{os.pathsep}{os.environ['PATH']}"
    run([str(clean / "pip"), "check"], desk)
    # No config is there: without one it is the embedded default, small here.
    settings = [word for setting in SMALL for word in ("--set", setting)]
    lines = 0
    for block in blocks(ROOT / "README.md"):
        if block.reason is not None:
            continue
        if block.language == "python":
            run([str(clean / "python"), "-c", block.text], desk)
            lines += 1
        elif block.language == "sh" and "make " not in block.text:
            for words in commands(block.text):
                small = settings if words[1] in ("run", "certify") else []
                run([str(clean / words[0]), *words[1:], *small], desk, PATH=path)
                lines += 1
    assert lines >= 7
    for made in (
        "runs/phantom/assess/report.html", "restored/photo-0.png", "again/photo-0.png",
        "attacked/manifest.csv", "runs/phantom/certify",
    ):  # fmt: skip
        assert (desk / made).exists(), made


IMPORT_ALL = """
import importlib, pkgutil, jernih
for found in pkgutil.walk_packages(jernih.__path__, "jernih.", onerror=lambda name: None):
    if not found.name.endswith("__main__"):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            print(error.name)
"""


@pytest.mark.slow
def test_modules_import_with_the_wheel_alone(clean: Path, desk: Path) -> None:
    """What is absent is what an extra brings."""
    said = run([str(clean / "python"), "-c", IMPORT_ALL], desk)
    absent = {name.partition(".")[0] for name in said.split()}
    assert absent <= {
        "fastapi", "gradio", "highdicom", "onnx", "onnxruntime", "onnxscript", "prometheus_client",
        "pynetdicom", "ray", "starlette", "uvicorn",
    }  # fmt: skip
    assert "fastapi" in absent, "the environment is not clean"
