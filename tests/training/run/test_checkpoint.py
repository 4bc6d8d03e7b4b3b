"""Checkpoint files: whole or absent, damage found, nothing executed."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from collections.abc import Iterator
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


def test_newest_is_by_phase_then_step(tmp_path: Path) -> None:
    for phase, step in ((0, 900), (1, 20), (1, 5)):
        save(tmp_path / "checkpoints", step, phase)
    names = [path.name for path in checkpoint.listing(tmp_path / "checkpoints")]
    assert names == ["phase01-step000000020", "phase01-step000000005", "phase00-step000000900"]
    assert latest_checkpoint(tmp_path).name == names[0]


def test_pruning_keeps_the_newest_the_last_of_each_phase_and_each_nth(tmp_path: Path) -> None:
    places = [(0, 5), (0, 8), (0, 10), (0, 13), (1, 5), (1, 6), (1, 7), (1, 8), (2, 1)]
    for phase, step in places:
        save(tmp_path, step, phase)
    (tmp_path / ".writing.1").mkdir()

    def kept(keep: int, every: int | None) -> set[tuple[int, int]]:
        checkpoint.prune(tmp_path, keep, every)
        assert not list(tmp_path.glob(".writing.*"))
        return {(int(path.name[5:7]), int(path.name[-9:])) for path in tmp_path.iterdir()}

    assert kept(3, 5) == {(2, 1), (1, 8), (1, 7), (0, 13), (0, 10), (0, 5), (1, 5)}
    assert kept(2, None) == {(2, 1), (1, 8), (0, 13)}
    assert kept(1, None) == {(2, 1), (1, 8), (0, 13)}


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


def test_only_a_disk_that_refuses_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of the program is no lack of space, and the library's words for a full disk are."""
    with pytest.raises(KeyError):
        checkpoint.write(tmp_path, facts(5), {"a": torch.zeros(2, dtype=torch.complex64)}, STATE)
    with pytest.raises(ValueError, match="step"):
        checkpoint.write(tmp_path, facts(5) | {"step": "five"}, WEIGHTS, STATE)

    good = save(tmp_path, 5)
    assert os.listdir(tmp_path) == [good.name]
    monkeypatch.setattr(checkpoint, "_hashed", small_disk)
    with pytest.raises(UserError, match=r"cannot be written: No space left on device\. Free some space"):
        checkpoint.write(tmp_path, facts(6), WEIGHTS, {"big": torch.ones(100_000)})
    assert os.listdir(tmp_path) == [good.name]


def test_a_disk_that_became_read_only_is_not_taken_for_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = save(tmp_path, 5)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(checkpoint, "publish_dir", refuse)
    with pytest.raises(UserError, match=r"cannot be written: Read-only file system\. See to that") as error:
        save(tmp_path, 6)
    assert "space" not in error.value.one_line() and os.listdir(tmp_path) == [good.name]


class Small(io.FileIO):
    """A file on a disk of 100 kB."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 100_000:
            raise OSError(28, "No space left on device")
        return super().write(data)


@contextlib.contextmanager
def small_disk(path: Path, kept: dict[str, Any]) -> Iterator[Any]:
    """A stand-in for `checkpoint._hashed`."""
    with Small(path, "w") as stream:
        kept[path.name] = checkpoint._HashedFile(stream)  # type: ignore[arg-type]
        yield kept[path.name]


def test_model_config_survives_json() -> None:
    import dataclasses
    import json

    for size in SIZES.values():
        assert model_config(json.loads(json.dumps(dataclasses.asdict(size)))) == size
