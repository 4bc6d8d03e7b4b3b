"""The peak arithmetic rate that MFU is a share of: a published figure for known GPUs, else one measured here."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corpus.base.errors import UserError, nearest

if TYPE_CHECKING:
    import torch

DENSE_BF16 = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200 NVL": 836e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800 PCIe": 756e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "MI300X": 1307e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""FLOP/s without sparsity, from the makers' data sheets; the first whose words are in the device's name counts."""

LESS = ("MIG", "Laptop", "Max-Q", "RTX 4090 D", "RTX 3090 Ti")
"""Words of names whose devices have another peak than the one they are named after: a slice of it, or a variant."""

MEMORY = {
    "B200": 180, "GH200": 96, "H200": 141, "H100 NVL": 94, "H100": 80, "H800": 80, "H20": 96, "A100": 80, "A800": 80,
    "L40S": 48, "L40": 48, "L4": 24, "A10G": 24, "A10": 24, "MI300X": 192, "RTX 4090": 24, "RTX 3090": 24,
}  # fmt: skip
"""Device memory in GB, for estimates."""

EDGE = {"cpu": 768, "cuda": 8192}
"""Edge of the square matrices multiplied on a device without a published figure. A GPU has done with small ones before
the next is asked for, and what one measures is the asking."""

MEASURE_SECONDS = 0.4
"""Time spent on it; the fastest product counts, so that other work on the machine lowers the figure less."""


@dataclass(frozen=True)
class Peak:
    """A device's peak."""

    flops: float
    """FLOP/s of one device."""
    note: str
    """Where the figure comes from, for people."""


def published(name: str) -> Peak:
    """The published peak of a GPU; raises UserError with the nearest known name."""
    known = _known(name, DENSE_BF16)
    if known:
        return Peak(DENSE_BF16[known], f"{known}, dense bf16, data sheet")
    raise UserError(f"no peak is known for '{name}'", where="--gpus", fix=nearest(name, DENSE_BF16))


def peak_of(device: torch.device) -> Peak:
    """The peak of the device that trains. An unknown one is timed on a matrix product, which takes a moment."""
    import torch

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if _known(name, DENSE_BF16):
            return published(name)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    edge = EDGE[device.type]
    matrix = torch.ones(edge, edge, dtype=dtype, device=device)
    best, until = float("inf"), time.perf_counter() + MEASURE_SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        # Reading an element waits for the product on every kind of device.
        float((matrix @ matrix)[0, 0])
        best = min(best, time.perf_counter() - start)
    flops = 2 * edge**3 / best
    return Peak(flops, f"measured here: product of {edge}x{edge} {str(dtype).removeprefix('torch.')} matrices")


def memory_of(name: str) -> int | None:
    """A GPU's memory in GB: its model's, or less where the name says so (A100 40GB); None for an unknown one."""
    said = re.search(r"(\d+) ?GB", name, re.IGNORECASE)
    known = _known(name, MEMORY)
    sizes = [*([int(said[1])] if said else []), *([MEMORY[known]] if known else [])]
    return min(sizes, default=None)


def _known(name: str, names: Iterable[str]) -> str | None:
    """The first of `names` that is in a device's name, in whole words: an L40 is no L4, an RTX A1000 no A100."""
    if any(_has(name, word) for word in LESS):
        return None
    return next((known for known in names if _has(name, known)), None)


def _has(name: str, words: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(words)}(?![a-z0-9])", name, re.IGNORECASE) is not None
