"""Files of a model: others on the machine read them as they read any new file."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.hf.exporting import export_hf
from training.hf.importing import import_hf
from training.model.decoder import MobileLM
from training.model.saved import save_tensors
from training.model.shapes import SIZES, scaled_down
from training.run import checkpoint


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_every_file_has_the_rights_of_a_new_one(umask: int, tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["125m"])
    state = MobileLM(cfg).state_dict()
    export_hf(state, cfg, tmp_path / "hf")
    import_hf(tmp_path / "hf", cfg, tmp_path / "in")
    facts = {
        "phase": 0, "recipe": "r", "step": 1, "tokens": 0, "finished": False, "model": {}, "data": {}, "world_size": 1,
        "microbatch": 1,
    }  # fmt: skip
    checkpoint.write(tmp_path / "checkpoints", facts, state, {"a": torch.ones(1)})
    paths = [path for path in tmp_path.rglob("*") if path != tmp_path]
    assert len(paths) > 10
    for path in paths:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_a_file_that_is_written_again_keeps_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors({"a": torch.ones(1)}, path)
    path.chmod(0o640)
    save_tensors({"a": torch.ones(2)}, path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_tensors_are_written_as_the_library_writes_them(tmp_path: Path) -> None:
    tensors = {
        "b": torch.arange(6.0).view(2, 3),
        "a": torch.ones(3, dtype=torch.bfloat16),
        "é": torch.tensor(7),
        "empty": torch.zeros(0, 4),
        "turned": torch.arange(6.0).view(2, 3).t(),
    }
    save_tensors(tensors, tmp_path / "ours")
    save_file({name: one.contiguous() for name, one in tensors.items()}, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert all(torch.equal(one, tensors[name]) for name, one in load_file(tmp_path / "ours").items())
