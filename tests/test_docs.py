"""What the documents for people name is there: files, rooms and commands."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

PATH = re.compile(r"`((?:corpus|training|tests|recipes|manifests|benchmarks|\.ci)/[\w./*-]*)`|\]\((?!http)([\w./-]+)\)")


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"])
def test_files_that_are_named_exist(document: str) -> None:
    named = {one or other for one, other in PATH.findall((ROOT / document).read_text())}
    assert named and not [name for name in named if not list(ROOT.glob(name.rstrip("/")))]


@pytest.mark.parametrize("package", ["corpus", "training"])
def test_every_room_and_command_has_its_line(package: str) -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = text.split(f"| room of `{package}/` |")[1].split("\n\n")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    rooms = {row.split("`")[1] for row in rows[:-1]}
    assert rooms == {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    commands = set(re.findall(r"`(\w+)`", rows[-1]))
    assert commands == {path.stem for path in (ROOT / package).glob("[!_]*.py")}
