"""The evaluation command. What it measures is tested in evaluation/."""

from __future__ import annotations

import subprocess
import sys

from tests.training.trainer_kit import ROOT


def test_help_answers_without_heavy_imports() -> None:
    code = "import sys, training.evaluate, training.teacher; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "streaming", "lm_eval", "transformers"} & set(out.stdout.split())
