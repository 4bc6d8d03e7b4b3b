"""Peaks by the whole words of a device's name; what has no published figure is timed."""

from __future__ import annotations

import pytest
import torch

from corpus.base.errors import UserError
from training.run.peak import EDGE, memory_of, peak_of, published


@pytest.mark.parametrize(
    ("name", "teraflops", "gigabytes"),
    [
        ("NVIDIA H100 80GB HBM3", 989, 80),
        ("NVIDIA H100 PCIe", 756, 80),
        ("NVIDIA H200", 989, 141),
        ("NVIDIA GH200 480GB", 989, 96),
        ("NVIDIA H20", 148, 96),
        ("NVIDIA H800", 989, 80),
        ("NVIDIA A800-SXM4-80GB", 312, 80),
        ("NVIDIA A100-SXM4-40GB", 312, 40),
        ("NVIDIA L40", 181, 48),
        ("NVIDIA L40S", 362, 48),
        ("NVIDIA L4", 121, 24),
        ("NVIDIA A10G", 70, 24),
        ("NVIDIA A10", 125, 24),
        ("NVIDIA GeForce RTX 4090", 165, 24),
        ("h100", 989, 80),
    ],
)
def test_known_devices(name: str, teraflops: int, gigabytes: int) -> None:
    assert published(name).flops == teraflops * 1e12 and memory_of(name) == gigabytes


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA RTX A1000", "NVIDIA A100X", "NVIDIA L40G", "NVIDIA L400", "NVIDIA A1000 Laptop GPU",
        "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D", "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
        "NVIDIA B2000", "Tesla V100-SXM2-16GB",
    ],
)  # fmt: skip
def test_devices_that_are_only_named_alike(name: str) -> None:
    with pytest.raises(UserError, match="no peak is known"):
        published(name)


def test_an_unknown_device_is_timed_with_matrices_that_keep_it_busy() -> None:
    peak = peak_of(torch.device("cpu"))
    assert peak.flops > 1e8 and "768x768 float32" in peak.note
    assert EDGE["cuda"] == 8192
