"""The memory arithmetic against what autograd keeps, and what it says of published runs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from training.model.decoder import MobileLM
from training.model.memory import largest_microbatch, layer_bytes, needs_recompute, peak_bytes, sequence_bytes
from training.model.shapes import SIZES, ModelConfig

SEQ_LEN, WINDOW = 160, 32
SHAPES = {
    # Widths that are all different, so that a wrong one shows.
    "950m": dataclasses.replace(SIZES["950m"], heads=6, kv_heads=2, head_dim=16, dim=80, ffn=136),
    "125m": dataclasses.replace(SIZES["125m"], heads=6, kv_heads=3, head_dim=16, dim=80, ffn=136),
    "pro": dataclasses.replace(
        SIZES["pro"], heads=8, kv_heads=2, head_dim=16, dim=80, ffn=136, sliding_window=WINDOW, global_layers=(0, 1, 2)
    ),
    "pro-local": dataclasses.replace(
        SIZES["pro"], heads=8, kv_heads=2, head_dim=16, dim=80, ffn=136, sliding_window=WINDOW, global_layers=()
    ),
}


def kept(cfg: ModelConfig, layers: int, bf16: bool, recompute: bool) -> int:
    """Bytes that autograd keeps of a forward pass, without weights and their copies."""
    model = MobileLM(dataclasses.replace(cfg, layers=layers, vocab_size=64, max_positions=SEQ_LEN, published=None))
    model.recompute_blocks(recompute)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    weights = {shape for p in model.parameters() if p.ndim == 2 for shape in (tuple(p.shape), tuple(p.T.shape))}
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own and tuple(tensor.shape) not in weights:
            found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.zeros(1, SEQ_LEN, dtype=torch.int64)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        output = model(ids)
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_bytes_of_a_layer_are_what_autograd_keeps(name: str, bf16: bool) -> None:
    cfg = SHAPES[name]
    measured = (kept(cfg, 3, bf16, recompute=False) - kept(cfg, 2, bf16, recompute=False)) / SEQ_LEN
    reckoned = layer_bytes(cfg, 2 if name == "pro-local" else 0, SEQ_LEN, bf16=bf16, cuda=False)
    # Windows also keep a mask, which no longer row makes larger.
    assert reckoned == pytest.approx(measured, rel=0.05 if name == "pro-local" else 0.001)


def test_a_checkpointed_layer_keeps_its_input() -> None:
    cfg = SHAPES["950m"]
    measured = (kept(cfg, 3, True, recompute=True) - kept(cfg, 2, True, recompute=True)) / SEQ_LEN
    assert measured == 4 * cfg.dim
    more = dataclasses.replace(cfg, layers=cfg.layers + 1)
    assert sequence_bytes(more, 7, recompute=True) - sequence_bytes(cfg, 7, recompute=True) == 7 * measured


def test_fine_tuning_at_32768_fits_one_80_gb_card_checkpointed_only() -> None:
    cfg = SIZES["950m"]
    assert needs_recompute(cfg, 32_768, 80e9) and not needs_recompute(cfg, 2_048, 80e9)
    assert largest_microbatch(cfg, 32_768, 8, 80e9, recompute=True) >= 1
    assert peak_bytes(cfg, 32_768, 1, recompute=True) < 48e9
    assert largest_microbatch(cfg, 2_048, 3, 80e9, recompute=False) == 3


def test_shards_take_less() -> None:
    cfg = SIZES["1.5b"]
    assert peak_bytes(cfg, 2_048, 1, recompute=False, shards=8) < peak_bytes(cfg, 2_048, 1, recompute=False) - 8e9
