"""The contracts of pyproject.toml hold, and each breaks when it should; --help needs no heavy library."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment, run_command

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OPTIONS = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
CONTRACTS = {key: contract["name"] for key, contract in OPTIONS.items()}
LATE = "def late() -> None:\n    {}\n"
VIOLATIONS = {
    "a room of corpus climbs": ("corpus-layers", {"corpus/records/added.py": "import corpus.streams.plan\n"}),
    "late counts too": ("corpus-layers", {"corpus/base/added.py": LATE.format("from corpus.pipeline import run")}),
    "a room imports a command": ("corpus-layers", {"corpus/report/added.py": LATE.format("import corpus.build")}),
    "a room nobody placed": ("corpus-layers", {"corpus/added.py": "\n"}),
    "a command imports a command": ("training-layers", {"training/plot.py": LATE.format("import training.sizes")}),
    "a room of training climbs": ("training-layers", {"training/data/added.py": "import training.run.trainer\n"}),
    "a room imports a command of training": (
        "training-layers",
        {"training/evaluation/added.py": LATE.format("from training import evaluate")},
    ),
    "a room of training nobody placed": ("training-layers", {"training/added/__init__.py": "\n"}),
    "corpus imports training": (
        "corpus-alone",
        {"corpus/recipe/added.py": LATE.format("import training.data")},
    ),
    **{
        f"corpus imports {library}": ("corpus-alone", {"corpus/streams/added.py": LATE.format(f"import {library}.nn")})
        for library in ("torch", "composer", "streaming", "transformers")
    },
    "training imports a command of corpus": (
        "training-takes-rooms",
        {"training/run/added.py": LATE.format("from corpus.build import main")},
    ),
    "a circle inside a room": (
        "no-circles",
        {
            "corpus/cleaning/added.py": LATE.format("from corpus.cleaning import circle"),
            "corpus/cleaning/circle.py": "import corpus.cleaning.added\n",
        },
    ),
}
HEAVY = (
    "torch",
    "composer",
    "streaming",
    "transformers",
    "datasets",
    "datatrove",
    "boto3",
    "spacy",
    "matplotlib",
    "ray",
)
COMMANDS = sorted(
    f"{path.parent.name}.{path.stem}"
    for package in ("corpus", "training")
    for path in (ROOT / package).glob("[!_]*.py")
)


def broken(folder: Path) -> dict[str, str]:
    """(The id of every contract that the tree in a folder breaks) -> what was said about it and the others."""
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env=environment(PYTHONPATH=str(folder), COLUMNS="300"),
        capture_output=True,
        text=True,
    )
    verdicts = {
        key: line.removeprefix(name).split()[0]
        for line in result.stdout.splitlines()
        for key, name in CONTRACTS.items()
        if line.startswith(f"{name} ")
    }
    assert verdicts.keys() == CONTRACTS.keys(), result.stdout + result.stderr
    assert result.returncode == (1 if "BROKEN" in verdicts.values() else 0)
    return {key: result.stdout for key, verdict in verdicts.items() if verdict == "BROKEN"}


def test_the_contracts_hold() -> None:
    assert not broken(ROOT)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of both packages and of the contracts."""
    folder = tmp_path_factory.mktemp("tree")
    for package in ("corpus", "training"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize("what", VIOLATIONS)
def test_a_contract_breaks(tree: Path, what: str) -> None:
    contract, files = VIOLATIONS[what]
    for name, text in files.items():
        (tree / name).parent.mkdir(exist_ok=True)
        with (tree / name).open("a") as module:
            module.write(text)
    try:
        said = broken(tree)
    finally:
        for name in files:
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, tree / name)
            else:
                (tree / name).unlink()
    # A climb often closes a circle as well.
    assert contract in said and said.keys() <= {contract, "no-circles"}
    assert all(Path(name.removesuffix("/__init__.py")).stem in said[contract] for name in files)


def test_every_contract_is_seen_to_break() -> None:
    assert {contract for contract, _ in VIOLATIONS.values()} == CONTRACTS.keys()


def test_the_contracts_know_every_command() -> None:
    listed = [f"{package}.{name}" for package in ("corpus", "training")
              for name in OPTIONS[f"{package}-layers"]["layers"][0].split(" | ")]  # fmt: skip
    assert sorted(listed) == COMMANDS
    assert OPTIONS["training-takes-rooms"]["forbidden_modules"] == [name for name in listed if "corpus." in name]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_heavy_library(command: str) -> None:
    """Composer, torch and their like take seconds to import: they are imported once there is work for them."""
    code = f"""\
import json, runpy, sys
sys.argv = [{command!r}, "--help"]
try:
    runpy.run_module({command!r}, run_name="__main__", alter_sys=True)
except SystemExit as end:
    print("\\n" + json.dumps([end.code, sorted(set(sys.modules) & set({HEAVY!r}))]))
"""
    result = run_command("-c", code)
    assert "usage:" in result.stdout, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == [0, []]


def test_importing_all_of_corpus_brings_in_none_of_the_trainer() -> None:
    code = """\
import importlib, pkgutil, sys
import corpus
for module in pkgutil.walk_packages(corpus.__path__, "corpus."):
    if not module.name.endswith(("__main__", ".on_ray")):  # ray is an extra
        importlib.import_module(module.name)
unwanted = {"torch", "composer", "streaming", "transformers", "training"}
print(sorted(set(sys.modules) & unwanted), "corpus.build" in sys.modules)
"""
    result = run_command("-c", code)
    assert result.stdout.split("\n")[0] == "[] True", result.stderr
