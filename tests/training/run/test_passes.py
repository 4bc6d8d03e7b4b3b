"""The number of sequences per pass: searched before the first step, agreed upon, kept, and nothing learnt from it."""

from __future__ import annotations

import argparse
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpus.base.errors import UserError
from corpus.recipe.model import Recipe
from tests.training.loader_ranks import run_ranks
from tests.training.trainer_kit import SEQ_LEN, recipe_dict
from training.distillation import cache
from training.distillation.loss import Distiller, Objective
from training.model.shapes import SIZES, scaled_down
from training.run import passes
from training.run.checkpoint import Record
from training.run.composer_model import INPUTS, TrainingModel
from training.run.parallel import ParallelTrainer
from training.run.passes import Trial, choose, largest, made_up_batch

OPTIONS: Any = argparse.Namespace(device_batch="auto", parallel="ddp", precision="fp32")
CUDA = torch.device("cuda", 0)


def small_model(**more: Any) -> TrainingModel:
    torch.manual_seed(0)
    return TrainingModel(dataclasses.replace(scaled_down(SIZES["950m"]), layers=2, vocab_size=256), ("a",), **more)


def phase_of(global_batch: int = 8, **more: Any) -> Any:
    recipe = recipe_dict("mix", 8)
    recipe["training"].update(global_batch=global_batch, virtual_epoch_samples=6 * global_batch)
    recipe |= {"tokens": 8 * global_batch * more.get("seq_len", SEQ_LEN), **more}
    return SimpleNamespace(recipe=Recipe.model_validate(recipe))


class Memory:
    """A device that holds so many sequences: the backward pass of more runs out, half-way down the model."""

    def __init__(self, model: TrainingModel, holds: int, where: str = "backward") -> None:
        self.holds, self.passes = holds, 0
        self.hook: Any
        layer = model.model.layers[0]
        if where == "backward":
            self.hook = layer.register_full_backward_hook(lambda module, grads, outputs: self._take(outputs[0]))
        else:
            self.hook = layer.register_forward_hook(lambda module, inputs, output: self._take(output))

    def _take(self, tensor: torch.Tensor) -> None:
        self.passes += 1
        if len(tensor) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`choose` believes it is on a GPU; the trials run on the CPU."""
    monkeypatch.setattr(passes, "describe", lambda place: "Test GPU, 80 GiB")
    monkeypatch.setattr(passes, "Trial", lambda model, place, *more: Trial(model, torch.device("cpu"), *more))


@given(st.integers(1, 4096), st.integers(0, 5000))
def test_the_largest_divisor_that_fits_is_found_in_few_trials(per_device: int, holds: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= holds

    divisors = [size for size in range(1, per_device + 1) if per_device % size == 0]
    assert largest(per_device, fits) == max((size for size in divisors if size <= holds), default=0)
    assert len(tried) <= len(divisors).bit_length() and set(tried) <= set(divisors)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_search_leaves_no_trace(where: str, pretended_gpu: None) -> None:
    model = small_model()
    memory = Memory(model, 4, where)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    found = choose(OPTIONS, phase_of(), model, CUDA, None)
    assert found.sequences == 4 and memory.passes > 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters()) and model.take_sums() is None
    assert torch.equal(torch.get_rng_state(), random)


def test_other_errors_are_not_taken_for_a_full_memory(pretended_gpu: None) -> None:
    model = small_model()

    def fails(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    model.model.layers[0].register_full_backward_hook(fails)
    with pytest.raises(RuntimeError, match="illegal"):
        choose(OPTIONS, phase_of(), model, CUDA, None)


def test_a_device_that_holds_nothing_is_named(pretended_gpu: None) -> None:
    model = small_model()
    Memory(model, 0)
    with pytest.raises(UserError, match="Test GPU, 80 GiB does not hold one sequence of 32 tokens"):
        choose(OPTIONS, phase_of(), model, CUDA, None)


def test_memory_that_was_given_back_to_the_driver_first_does_not_count(
    pretended_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that only fits so does it again each time, which costs more than smaller passes."""
    model, retries = small_model(), [0]
    model.model.layers[0].register_forward_hook(
        lambda module, inputs, output: retries.append(retries[-1] + 1) if len(output) > 2 else None
    )
    monkeypatch.setattr(passes, "allocation_retries", lambda place: retries[-1])
    assert choose(OPTIONS, phase_of(), model, CUDA, None).sequences == 2


def test_a_resume_takes_the_number_of_its_checkpoint_unless_what_it_was_found_for_changed(pretended_gpu: None) -> None:
    model, phase = small_model(), phase_of()
    memory = Memory(model, 8)
    first = choose(OPTIONS, phase, model, CUDA, None)
    assert first.sequences == 8 and first.found_for
    record = Record(
        phase=0, recipe="mix", step=1, tokens=1, finished=False, model={}, data={}, world_size=1, microbatch=2,
        found_for=first.found_for, files={},
    )  # fmt: skip
    record, tried = Record.model_validate_json(record.model_dump_json()), memory.passes
    assert choose(OPTIONS, phase, model, CUDA, record).sequences == 2 and memory.passes == tried
    bf16 = argparse.Namespace(**{**vars(OPTIONS), "precision": None})
    assert choose(bf16, phase, model, CUDA, record).sequences == 8 and memory.passes > tried
    for fact, value in {"devices": ["Test GPU, 40 GiB"], "processes": 2, "parallel": "fsdp2"}.items():
        other = record.model_copy(update={"found_for": {**first.found_for, fact: value}})
        assert choose(OPTIONS, phase, model, CUDA, other).sequences == 8
    unknown = record.model_copy(update={"found_for": None})
    assert choose(OPTIONS, phase, model, CUDA, unknown).sequences == 8
    masked = phase_of(document_mask=True)
    assert choose(OPTIONS, masked, model, CUDA, record).sequences == 8


def test_given_numbers_and_cpus_are_not_searched_for() -> None:
    model = small_model()
    Memory(model, 0, "forward")
    given = argparse.Namespace(**{**vars(OPTIONS), "device_batch": 3})
    assert choose(given, phase_of(), model, CUDA, None) == passes.Passes(3)
    for seq_len, expected in ((32, 8), (4096, 4), (32_768, 1)):
        assert choose(OPTIONS, phase_of(seq_len=seq_len), model, torch.device("cpu"), None) == passes.Passes(expected)


def _agreed() -> list[Any]:
    """The second process runs out of memory in the backward pass earlier than the first; then both train."""
    rank = torch.distributed.get_rank()
    passes.describe = lambda place: f"Test GPU {rank}"  # type: ignore[assignment]
    made: Any = Trial
    passes.Trial = lambda model, place, *more: made(model, torch.device("cpu"), *more)  # type: ignore[assignment,misc]
    model = small_model()
    memory = Memory(model, (4, 2)[rank])
    found = choose(OPTIONS, phase_of(16), model, CUDA, None)
    assert found.found_for and found.found_for["devices"] == ["Test GPU 0", "Test GPU 1"]
    before = memory.passes
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = ParallelTrainer(
        model=model,
        optimizers=optimizer,
        train_dataloader=_loader(),
        max_duration="2ba",
        device="cpu",
        device_train_microbatch_size=found.sequences,
        progress_bar=False,
    )
    trainer.fit()
    trainer.close()
    assert not trainer.state.auto_microbatching
    return [found.sequences, memory.passes - before]


def _loader() -> Any:
    from composer import DataSpec

    batches = [made_up_batch(8, SEQ_LEN, False) for _ in range(2)]
    return DataSpec(batches, get_num_samples_in_batch=lambda batch: len(batch[INPUTS]))


def test_processes_agree_on_what_the_smallest_holds_although_one_runs_out_in_its_backward_pass() -> None:
    # Two steps of eight sequences in passes of two.
    assert run_ranks(_agreed, 2) == [[2, 8], [2, 8]]


def test_a_search_uses_up_none_of_the_graphs_of_a_compiled_model(pretended_gpu: None) -> None:
    model = small_model()
    memory = Memory(model, 8, "forward")
    graphs, ran = 0, 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1

        def run(*given: Any) -> Any:
            nonlocal ran
            ran += 1
            return graph(*given)

        return run

    found = choose(OPTIONS, phase_of(256), model, CUDA, None)
    assert found.sequences == 8
    memory.hook.remove()
    model.compile(backend=backend, dynamic=False)
    counts = []
    for _ in range(3):
        ran = 0
        model(made_up_batch(found.sequences, SEQ_LEN, False)).backward()
        model.take_sums()
        counts.append((graphs, ran))
    assert counts[1] == counts[2] and counts[2][1] > 0


@pytest.mark.parametrize("top_k", [None, 4])
def test_made_up_data_asks_nothing_of_a_teacher_that_cannot_answer(
    top_k: int | None, pretended_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a cache, which holds the run's samples only, nor one that is sharded, which waits for other processes."""
    asked: list[Any] = []
    monkeypatch.setattr(cache, "cached_teacher", asked.append)
    teacher = cache.cached_teacher if top_k else asked.append
    distiller = Distiller(teacher, Objective(top_k=top_k))  # type: ignore[arg-type]
    model = small_model(distiller=distiller)
    Memory(model, 4)
    options = argparse.Namespace(**{**vars(OPTIONS), "parallel": "ddp" if top_k else "fsdp2"})
    monkeypatch.setattr(passes, "world_size", lambda: 1 if top_k else 2)
    phase = phase_of(8 if top_k else 16)
    assert choose(options, phase, model, CUDA, None).sequences == 4
    assert not asked and model.distiller is distiller
