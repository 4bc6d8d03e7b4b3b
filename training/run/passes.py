"""How many sequences a forward pass takes: given, fixed on a CPU, and on a GPU found once before the first step.

Composer's own search runs inside training: when memory is tight it trains on a batch a second time, it does not survive
running out of memory in DDP's backward pass, and each size it tries is one more graph to torch.compile. Here every
process tries sizes on the bare model, before it is wrapped or compiled and without a word to the others, so that none
can be left waiting; the smallest answer counts. Checkpoints keep it together with what it was found for, and a resume
takes it from there, because the size decides in which order gradients are added.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from composer.core import Precision, get_precision_context
from composer.utils import dist
from torch import Tensor

from corpus.base.errors import UserError
from training.distillation.loss import Distiller, LogitsOf, TopK
from training.run.checkpoint import Record
from training.run.composer_model import DOCUMENTS, INPUTS, SOURCES, TARGETS, TrainingModel
from training.run.options import Options
from training.run.phases import Phase
from training.run.world import world_size

CPU_TOKENS = 16_384
"""Tokens per forward pass on a CPU, whose memory has no hard end to search for."""

SPARE = 0.06
"""Share of a GPU's memory kept free in the search: for NCCL, a fragmented heap, DDP as it regroups its buckets."""


@dataclass(frozen=True)
class Passes:
    """The answer for one phase."""

    sequences: int
    """Per forward pass on each device."""
    found_for: dict[str, Any] | None = None
    """The devices and settings it was searched for; None when it was given, or follows from the settings."""
    note: str = ""
    """Where it comes from, for people."""


def choose(options: Options, phase: Phase, model: TrainingModel, place: torch.device, record: Record | None) -> Passes:
    """Sequences per forward pass of the phase, the same on all processes, which call this together.

    `model` is not wrapped yet, and comes back as it was. `record` is of the checkpoint that the phase goes on from.
    Raises UserError when the device does not hold a single sequence.
    """
    per_device = phase.recipe.training.global_batch // world_size()
    if options.device_batch != "auto":
        return Passes(min(options.device_batch, per_device))
    if place.type == "cpu":
        return Passes(max(1, min(per_device, CPU_TOKENS // phase.recipe.seq_len)))
    facts: dict[str, Any] = {
        "devices": sorted(set(dist.all_gather_object(describe(place)))),
        "processes": world_size(),
        "parallel": options.parallel,
        "precision": precision_of(options, place),
        "sequences": per_device,
        "seq_len": phase.recipe.seq_len,
        "document_mask": phase.recipe.document_mask,
        "checkpointed_activations": model.model.recomputes,
        "distillation": _teacher_facts(phase),
    }
    if record and record.found_for == facts:
        return Passes(record.microbatch, facts, "as in the checkpoint")
    shares = world_size() if options.parallel == "fsdp2" else 1
    trial = Trial(model, place, phase, facts["precision"], shares)
    with trial.prepared():
        mine = largest(per_device, trial)
    found = min(dist.all_gather_object(mine))
    if not found:
        raise UserError(
            f"{facts['devices'][0]} does not hold one sequence of {phase.recipe.seq_len:,} tokens with the model, its "
            "gradients and Adam",
            where="--device-batch auto",
            fix="Use a device with more memory, a smaller --size, or --parallel fsdp2 on several.",
        )
    return Passes(found, facts, "the largest number that fits" if found < per_device else "all of the step's")


def precision_of(options: Options, place: torch.device) -> str:
    """Composer's name of the arithmetic: as asked for, else bfloat16 with float32 weights on GPUs, float32 on CPUs."""
    return options.precision or ("amp_bf16" if place.type == "cuda" else "fp32")


def describe(place: torch.device) -> str:
    """A GPU by name and memory, which MIG and clones of a name share out differently."""
    properties = torch.cuda.get_device_properties(place)
    return f"{properties.name}, {properties.total_memory / (1 << 30):.0f} GiB"


def largest(per_device: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor of `per_device` that fits, given that smaller ones then do; 0 when not even 1 does.

    Divisors only: all passes of a step are then alike, which is one graph to compile.
    """
    sizes = [0, *(size for size in range(1, per_device + 1) if per_device % size == 0)]
    low, high = 0, len(sizes) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(sizes[middle]) else (low, middle - 1)
    return sizes[low]


class Trial:
    """Whether a number of sequences fits, by a step's peak of memory on made-up data: nothing is learnt from it."""

    def __init__(
        self, model: TrainingModel, place: torch.device, phase: Phase, precision: str, sharded_by: int
    ) -> None:
        """`sharded_by` processes share Adam's state; weights and gradients are tried whole, as FSDP2 has gradients."""
        self.model, self.place, self.sharded_by = model, place, sharded_by
        self.seq_len, self.precision = phase.recipe.seq_len, Precision(precision)
        self.document_mask = phase.recipe.document_mask

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """The model on the device, and random states that are the same afterwards."""
        on_gpu = self.place.type == "cuda"
        with torch.random.fork_rng([self.place] if on_gpu else []), made_up_teacher(self.model, self.sharded_by > 1):
            try:
                yield
            finally:
                self.model.to("cpu")
                self._clear()

    def __call__(self, sequences: int) -> bool:
        """Try it; memory that was only found by giving cached blocks back to the driver counts as none."""
        before = allocation_retries(self.place)
        fits = True
        try:
            self._step(sequences)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        self._clear()
        return fits and allocation_retries(self.place) == before

    def _step(self, sequences: int) -> None:
        """All that a step holds at once: the second pass adds to gradients, beside Adam's state."""
        self.model.to(self.place)
        held = [self._spare()]
        for parameter in self.model.parameters():
            held += [torch.empty(-(-parameter.numel() // self.sharded_by), device=self.place) for _ in range(2)]
        batch = made_up_batch(sequences, self.seq_len, self.document_mask)
        batch = {key: tensor.to(self.place) for key, tensor in batch.items()}
        for _ in range(2):
            with get_precision_context(self.precision):
                loss = self.model(batch)
            loss.backward()

    def _spare(self) -> Tensor:
        total = torch.cuda.get_device_properties(self.place).total_memory if self.place.type == "cuda" else 0
        return torch.empty(int(SPARE * total), dtype=torch.uint8, device=self.place)

    def _clear(self) -> None:
        self.model.zero_grad(set_to_none=True)
        self.model.take_sums()
        if self.place.type == "cuda":
            torch.cuda.empty_cache()


def allocation_retries(place: torch.device) -> int:
    """How often the driver had no memory left until cached blocks were given back to it."""
    return int(torch.cuda.memory_stats(place).get("num_alloc_retries", 0)) if place.type == "cuda" else 0


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the device's memory is full, as torch says it, or cuBLAS, which asks the driver itself."""
    return any(text in str(error) for text in ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED"))


def made_up_batch(sequences: int, seq_len: int, document_mask: bool) -> dict[str, Tensor]:
    """A batch with the loader's shapes and types, as far as the model reads it."""
    zeros = torch.zeros(sequences, seq_len, dtype=torch.int64)
    batch = {INPUTS: zeros, TARGETS: zeros, SOURCES: torch.zeros(sequences, dtype=torch.int64)}
    return batch | {DOCUMENTS: zeros.int()} if document_mask else batch


@contextlib.contextmanager
def made_up_teacher(model: TrainingModel, even_online: bool = True) -> Iterator[None]:
    """Nothing is asked of the teacher: a cache knows no made-up samples, and a sharded teacher waits for all processes.

    An online teacher that is whole is kept unless `even_online`: its memory counts.
    """
    from training.distillation.cache import cached_teacher

    real = model.distiller
    if real and (even_online or real.teacher is cached_teacher):
        model.distiller = Distiller(_Blank(real.objective.top_k, model.model.cfg.vocab_size), real.objective)
    try:
        yield
    finally:
        model.distiller = real


class _Blank:
    """A teacher without an opinion, whose answers have the real one's shapes."""

    def __init__(self, k: int | None, vocab_size: int) -> None:
        self.k, self.vocab_size = k, vocab_size

    def __call__(self, batch: Any) -> LogitsOf | TopK:
        ids: Tensor = batch[INPUTS]
        if self.k is None:
            return lambda part: torch.zeros(part.stop - part.start, self.vocab_size, device=ids.device)
        rows = torch.arange(self.k, device=ids.device).expand(ids.numel(), -1).contiguous()
        return TopK(rows, torch.full((ids.numel(), self.k + 1), -1.0, device=ids.device))


def _teacher_facts(phase: Phase) -> dict[str, Any] | None:
    settings = phase.recipe.training.distillation
    return settings.model_dump(mode="json") if settings else None
