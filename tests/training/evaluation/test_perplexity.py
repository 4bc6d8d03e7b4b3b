"""Perplexity by its published protocol."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F

from corpus.base.errors import UserError
from tests.training.evaluation.evaluation_kit import ROWS, evaluate
from training.evaluation import perplexity
from training.evaluation.perplexity import read_rows, wikitext
from training.evaluation.subject import Subject


def write_text(folder: Path, rows: list[str]) -> list[Path]:
    """The same rows in the three forms that are read."""
    pq.write_table(pa.table({"text": rows}), folder / "t.parquet")
    (folder / "t.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    (folder / "t.raw").write_text("".join(row or " \n" for row in rows))
    return [folder / "t.parquet", folder / "t.jsonl", folder / "t.raw"]


def test_rows_are_the_same_in_every_file_format(tmp_path: Path) -> None:
    assert [read_rows(path) for path in write_text(tmp_path, ROWS)] == [ROWS] * 3
    (tmp_path / "bad.jsonl").write_text('{"txt": 1}\n')
    with pytest.raises(UserError, match="raw text"):
        read_rows(tmp_path / "bad.jsonl")


@pytest.mark.parametrize("form", [0, 1, 2])
def test_only_the_whole_test_split_is_the_published_protocol(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: int
) -> None:
    """The split's own hash cannot be tested without it; that of these rows' raw file stands in for it."""
    rows = ["", " = Title = \n", "", *ROWS * 20]
    assert perplexity.TEST_SPLIT.startswith("173c87a5")
    raw = "".join(row or " \n" for row in rows).encode()
    monkeypatch.setattr(perplexity, "TEST_SPLIT", hashlib.sha256(raw).hexdigest())
    monkeypatch.setattr(perplexity, "WINDOW", 48)
    path = write_text(tmp_path, rows)[form]
    assert wikitext(subject, path, 48, 8)["published_protocol"]
    assert not wikitext(subject, path, 32, 8)["published_protocol"]
    result = wikitext(subject, write_text(tmp_path, rows[:-1])[form], 48, 8)
    assert not result["published_protocol"] and not result["test_split"]


def test_wikitext_perplexity_follows_the_protocol(
    folder: Path, subject: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ROWS * 20
    path = write_text(tmp_path, rows)[0]
    result = evaluate(capsys, folder, "--wikitext", path, "--window", 48)["wikitext"]
    ids = [0, *subject.tokenizer().encode("\n\n".join(rows))]
    losses = []
    for start in range(0, len(ids) - 47, 48):
        window = torch.tensor([ids[start : start + 48]])
        logits = subject.model.logits(subject.model(window))[0, :-1]
        losses.append(F.cross_entropy(logits, window[0, 1:]).item())
    assert len(losses) == result["windows"] == len(ids) // 48 and result["tokens"] == len(ids)
    assert result["perplexity"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert not result["published_protocol"]
    stored = json.loads((folder / "runs/run/eval/wikitext-phase00-step000000004.json").read_text())
    assert stored["wikitext"] == result and stored["step"] == 4 and stored["weights_xxh3"]
    with pytest.raises(UserError, match="less than one window of 2048"):
        wikitext(subject, write_text(tmp_path, ROWS)[0], 2048, 8)
