"""The size table's command."""

import json
import subprocess
import sys

import pytest

from tests.training.model.test_shapes import PUBLISHED
from training.sizes import main


def test_command_prints_exact_counts(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json"])
    rows = {row["size"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: rows[name]["parameters"] for name in PUBLISHED} == PUBLISHED
    assert rows["140m"]["embedding_share"] == pytest.approx(0.527, abs=5e-4)
    main([])
    table = capsys.readouterr().out
    assert all(f"{count:,}" in table for count in PUBLISHED.values())


def test_table_needs_no_torch() -> None:
    script = "import sys, training.sizes; training.sizes.main(['--json']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0
