"""Checkpoint files: whole or absent, damage found, nothing executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus.base.errors import UserError
from training.model.shapes import SIZES, model_config
from training.run import checkpoint
from training.run.folder import latest_checkpoint, load_weights

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4)}
STATE = {
    "optimizers": {"AdamW": {"state": {"a": {"step": torch.tensor(3.0)}}}},
    "random": [{"python": (3, (1, 2), None)}],
}


def facts(step: int, phase: int = 0) -> dict[str, Any]:
    import dataclasses

    return {
        "phase": phase, "recipe": "mix", "step": step, "tokens": step * 8, "finished": False,
        "model": dataclasses.asdict(SIZES["pro"]), "data": {"step": step, "fields": {}, "changes": []},
        "world_size": 1, "microbatch": 1,
    }  # fmt: skip


def save(folder: Path, step: int, phase: int = 0) -> Path:
    return checkpoint.write(folder, facts(step, phase), WEIGHTS, STATE)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints", 5)
    record = checkpoint.verify(path)
    assert (record.step, record.name) == (5, path.name)
    assert all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in checkpoint.read_weights(path).items())
    for mmap in (False, True):
        state = checkpoint.read_state(path, mmap)
        assert state["random"] == STATE["random"]
        assert state["optimizers"]["AdamW"]["state"]["a"]["step"] == 3
    weights, config = load_weights(tmp_path)
    assert weights.keys() == WEIGHTS.keys() and config == SIZES["pro"]


def test_newest_is_by_phase_then_step_and_pruning_keeps_it(tmp_path: Path) -> None:
    for phase, step in ((0, 900), (1, 20), (1, 5)):
        save(tmp_path / "checkpoints", step, phase)
    (tmp_path / "checkpoints" / ".writing.1").mkdir()
    names = [path.name for path in checkpoint.listing(tmp_path / "checkpoints")]
    assert names == ["phase01-step000000020", "phase01-step000000005", "phase00-step000000900"]
    assert latest_checkpoint(tmp_path).name == names[0]
    checkpoint.prune(tmp_path / "checkpoints", 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == sorted(names[:2])


@pytest.mark.parametrize("file", [checkpoint.WEIGHTS_FILE, checkpoint.STATE_FILE, checkpoint.RECORD_FILE])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found_and_the_one_before_is_used(tmp_path: Path, file: str, damage: str) -> None:
    old, new = save(tmp_path, 5), save(tmp_path, 10)
    content = bytearray((new / file).read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        (new / file).unlink()
    else:
        (new / file).write_bytes(content if damage == "flip" else content[:-7])
    warnings: list[str] = []
    found = checkpoint.newest_good(tmp_path, warnings.append)
    assert found and found[0] == old and found[1].step == 5
    assert len(warnings) == 1 and file in warnings[0] and "damaged-phase00-step000000010" in warnings[0]
    assert checkpoint.listing(tmp_path) == [old]
    # The step can be saved again.
    assert checkpoint.verify(save(tmp_path, 10)).step == 10


def test_nothing_intact_is_an_error_and_nothing_at_all_is_not(tmp_path: Path) -> None:
    assert checkpoint.newest_good(tmp_path, print) is None
    (save(tmp_path, 5) / checkpoint.STATE_FILE).unlink()
    with pytest.raises(UserError, match="no checkpoint is intact"):
        checkpoint.newest_good(tmp_path, print)


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_code_in_a_checkpoint_is_refused_not_run(tmp_path: Path) -> None:
    path, sign = save(tmp_path, 5), tmp_path / "executed"
    torch.save({"optimizers": _Touch(sign)}, path / checkpoint.STATE_FILE)
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.read_state(path)
    (path / checkpoint.STATE_FILE).write_bytes(pickle.dumps(_Touch(sign)))
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.read_state(path)
    assert not sign.exists()


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save(tmp_path, 5)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left.*earlier checkpoints are untouched"):
        save(tmp_path, 10)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [good.name]
    assert checkpoint.verify(good).step == 5


def test_model_config_survives_json() -> None:
    import dataclasses
    import json

    for size in SIZES.values():
        assert model_config(json.loads(json.dumps(dataclasses.asdict(size)))) == size
