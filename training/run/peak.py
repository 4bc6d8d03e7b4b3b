"""The peak arithmetic rate that MFU is a share of: a published figure for known GPUs, else one measured here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corpus.base.errors import UserError, nearest

if TYPE_CHECKING:
    import torch

DENSE_BF16 = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "MI300X": 1307e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""FLOP/s without sparsity, from the makers' data sheets; the first name contained in the device's name counts."""

MEMORY = {"B200": 180, "H200": 141, "H100": 80, "A100": 80, "L40S": 48, "L4": 24, "A10G": 24, "MI300X": 192}
"""Device memory in GB, for estimates."""

MEASURED_SIZE = 768
"""Edge of the square matrices multiplied on a device without a published figure."""

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
    for known, flops in DENSE_BF16.items():
        if known.lower() in name.lower():
            return Peak(flops, f"{known}, dense bf16, data sheet")
    raise UserError(f"no peak is known for '{name}'", where="--gpus", fix=nearest(name, DENSE_BF16))


def peak_of(device: torch.device) -> Peak:
    """The peak of the device that trains. An unknown one is timed on a matrix product, which takes a moment."""
    import torch

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if any(known.lower() in name.lower() for known in DENSE_BF16):
            return published(name)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    matrix = torch.ones(MEASURED_SIZE, MEASURED_SIZE, dtype=dtype, device=device)
    best, until = float("inf"), time.perf_counter() + MEASURE_SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        # Reading an element waits for the product on every kind of device.
        float((matrix @ matrix)[0, 0])
        best = min(best, time.perf_counter() - start)
    flops = 2 * MEASURED_SIZE**3 / best
    return Peak(
        flops, f"measured here: product of {MEASURED_SIZE}x{MEASURED_SIZE} {str(dtype).removeprefix('torch.')} matrices"
    )
