"""Replicated and sharded training over two processes: the same numbers, whatever is kept where."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor

from tests.training.loader_ranks import run_ranks
from training.model.shapes import SIZES, ModelConfig, scaled_down

SEQ_LEN = 48
SIZE_NAMES = ("950m", "125m-ls", "pro")


def config(name: str) -> ModelConfig:
    return dataclasses.replace(
        scaled_down(SIZES[name]), layers=2, global_layers=(0,) if name == "pro" else None, vocab_size=256
    )


def batch_of(rank: int, part: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(10 * rank + part)
    ids = torch.randint(256, (2, SEQ_LEN + 1), generator=generator)
    documents = (torch.arange(SEQ_LEN) >= 20).int().expand(2, -1)
    return {"input_ids": ids[:, :-1], "labels": ids[:, 1:], "source_ids": torch.zeros(2).long(), "doc_ids": documents}


def _sharded(model: Any) -> None:
    """`model` as the trainer shards it with amp_bf16, which Composer itself refuses on a CPU."""
    from composer.core.precision import Precision
    from composer.distributed.fsdp2 import prepare_fully_shard
    from composer.distributed.fsdp2_utils import generate_composer_model_policy
    from torch.distributed.device_mesh import init_device_mesh

    from training.run.parallel import parallelism_config

    chosen = parallelism_config("fsdp2")
    assert chosen
    settings = chosen["fsdp"]
    settings.device_mesh = init_device_mesh("cpu", (2,))
    prepare_fully_shard(model, settings, Precision.AMP_BF16, generate_composer_model_policy(model))


def _step(
    name: str, parallel: str, bf16: bool, recompute: bool = False
) -> tuple[list[float], dict[str, Tensor], list[str]]:
    """A step of two microbatches: losses, gradients, names of the modules that are sharded."""
    from torch.distributed.fsdp import FSDPModule

    from training.run.composer_model import TrainingModel
    from training.run.parallel import reduced_ones, replicate

    rank = torch.distributed.get_rank()
    torch.manual_seed(0)
    inner = model = TrainingModel(config(name), ("a",))
    inner.model.recompute_blocks(recompute)
    if parallel == "ddp":
        model: Any = replicate(inner)
    else:
        _sharded(model)
    losses = []
    for part in (0, 1):
        last = part == 1
        waits = model.no_sync() if parallel == "ddp" and not last else contextlib.nullcontext()
        if parallel == "fsdp2":
            inner.model.set_requires_gradient_sync(last)
        with waits:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(batch_of(rank, part))
            (loss / 2).backward()
        losses.append(float(loss))
    divisor = reduced_ones("cpu")
    grads = {
        name: (p.grad.full_tensor() / divisor if hasattr(p.grad, "full_tensor") else p.grad.clone())
        for name, p in inner.named_parameters()
    }
    return losses, grads, [name for name, each in inner.named_modules() if isinstance(each, FSDPModule)]


def _compared(bf16: bool) -> dict[str, dict[str, Any]]:
    found = {}
    for name in SIZE_NAMES:
        copies, shards = _step(name, "ddp", bf16), _step(name, "fsdp2", bf16)
        for kept, parallel in ((copies, "ddp"), (shards, "fsdp2")):
            again = _step(name, parallel, bf16, recompute=True)
            assert again[0] == kept[0] and all(torch.equal(grad, kept[1][key]) for key, grad in again[1].items())
        assert all(grad.dtype == torch.float32 for grad in (*copies[1].values(), *shards[1].values()))
        found[name] = {
            "losses": (copies[0], shards[0]),
            "apart": max(
                float((shards[1][key] - grad).abs().max() / grad.abs().max()) for key, grad in copies[1].items()
            ),
            "sharded": shards[2],
        }
    return found


@pytest.mark.parametrize("bf16", [False, True])
def test_shards_compute_what_copies_compute(bf16: bool) -> None:
    """In float32 and in bf16: a run may change from one to the other, and nothing but the order of sums changes."""
    for rank in run_ranks(_compared, 2, bf16=bf16):
        for found in rank.values():
            assert found["losses"][0] == found["losses"][1]
            assert found["apart"] < 1e-6
            assert found["sharded"] == ["model", "model.layers.0", "model.layers.1"]


def _trained(parallel: str) -> tuple[dict[str, float], int]:
    """Two steps of four microbatches by the trainer's parts: norms of the gradients, and reductions by FSDP2."""
    from composer import Callback, DataSpec

    from training.run.composer_model import TrainingModel
    from training.run.parallel import ParallelTrainer, ShardedGradients, parallelism_config

    rank, reductions, original = torch.distributed.get_rank(), 0, torch.distributed.reduce_scatter_tensor
    norms: dict[str, float] = {}

    class Look(Callback):
        def after_train_batch(self, state: Any, logger: Any) -> None:
            for name, parameter in state.model.named_parameters():
                grad = parameter.grad
                full = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
                norms[f"{state.timestamp.batch.value} {name.removeprefix('module.')}"] = float(full.norm())

    def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal reductions
        reductions += 1
        return original(*arguments, **more)

    torch.manual_seed(0)
    model = TrainingModel(config("950m"), ("a",))
    batches = [
        {key: torch.cat([batch_of(rank, 4 * step + part)[key] for part in range(4)]) for key in batch_of(0, 0)}
        for step in range(2)
    ]
    trainer = ParallelTrainer(
        model=model,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        train_dataloader=DataSpec(batches, get_num_samples_in_batch=lambda batch: len(batch["input_ids"])),
        max_duration="2ba",
        callbacks=[*([ShardedGradients()] if parallel == "fsdp2" else []), Look()],
        device="cpu",
        device_train_microbatch_size=2,
        parallelism_config=parallelism_config(parallel),
        progress_bar=False,
    )
    torch.distributed.reduce_scatter_tensor = counted
    trainer.fit()
    torch.distributed.reduce_scatter_tensor = original
    if parallel == "ddp":
        assert not trainer.state.model.broadcast_buffers and trainer.state.model.gradient_as_bucket_view
    trainer.close()
    return norms, reductions


def test_the_trainer_reduces_once_a_step_and_averages() -> None:
    copies, shards = (run_ranks(_trained, 2, parallel=parallel) for parallel in ("ddp", "fsdp2"))
    for (expected, _), (found, reductions) in zip(copies, shards, strict=True):
        assert found == pytest.approx(expected, rel=1e-5) and len(found) == 2 * 20
        # Of three sharded modules in two steps, and of the probe.
        assert reductions == 2 * 3 + 1
