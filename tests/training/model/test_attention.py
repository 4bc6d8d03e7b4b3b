"""Attention: every way to compute it against scores written out, and what it takes at 32,768 positions."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.training.trainer_kit import ROOT
from training.model import attention
from training.model.attention import BLOCK, Documents, Sight, attend, attention_mask, block_mask, document_lengths, see
from training.model.decoder import MobileLM
from training.model.shapes import SIZES, scaled_down

HEADS, KV_HEADS, WIDTH = 4, 2, 8


def brute_force(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Softmax over scores that are -inf where `visible` (B, S, S) is not."""
    k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in (k, v))
    scores = (q @ k.transpose(2, 3) / WIDTH**0.5).masked_fill(~visible.unsqueeze(1), float("-inf"))
    return scores.softmax(-1) @ v


def visible_pairs(doc_ids: Tensor, window: int | None) -> Tensor:
    """(B, S, S), pair by pair as the rule says."""
    rows, length = doc_ids.shape
    seen = torch.zeros(rows, length, length, dtype=torch.bool)
    for row in range(rows):
        for query in range(length):
            for key in range(query + 1):
                near = window is None or query - key < window
                seen[row, query, key] = near and bool(doc_ids[row, query] == doc_ids[row, key])
    return seen


def documents_of(rows: list[list[int]]) -> Tensor:
    """Rows of doc_ids from cuts into documents of these lengths."""
    return torch.stack([torch.arange(len(row)).repeat_interleave(torch.tensor(row)) for row in rows])


@st.composite
def batches(draw: st.DrawFn) -> Tensor:
    length = draw(st.integers(1, 40))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        cuts = sorted({0, length, *draw(st.lists(st.integers(0, length), max_size=6))})
        rows.append([end - start for start, end in zip(cuts, cuts[1:], strict=False)])
    return documents_of(rows)


def outputs(sight: Sight | Tensor, rows: int, length: int) -> list[Tensor]:
    """The attention of random q, k and v (for a mask: by brute force), and the gradients of all three."""
    generator = torch.Generator().manual_seed(length)
    q, k, v = (
        torch.randn(rows, heads, length, WIDTH, generator=generator).requires_grad_()
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    out = brute_force(q, k, v, sight) if isinstance(sight, Tensor) else attend(q, k, v, sight)
    (out * torch.randn(out.shape, generator=generator)).sum().backward()
    return [out.detach(), *(t.grad for t in (q, k, v) if t.grad is not None)]


@settings(max_examples=60, deadline=None)
@given(batches(), st.none() | st.integers(1, 20))
def test_every_way_equals_brute_force_forward_and_backward(doc_ids: Tensor, window: int | None) -> None:
    rows, length = doc_ids.shape
    one = torch.zeros_like(doc_ids)
    dense = attention_mask(length, window, doc_ids, doc_ids.device)
    lengths = document_lengths(doc_ids)
    assert sum(lengths) == rows * length and min(lengths) > 0
    expected = outputs(visible_pairs(doc_ids, window), rows, length)
    for sight in (
        Sight(window, mask=dense),
        Sight(window, documents=Documents(lengths)),
        see(length, window, doc_ids, dense.device),
    ):
        for found, right in zip(outputs(sight, rows, length), expected, strict=True):
            torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)
    whole = outputs(visible_pairs(one, window), rows, length)
    for found, right in zip(outputs(see(length, window, None, one.device), rows, length), whole, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.data(), st.integers(1, 5 * BLOCK), st.none() | st.integers(1, 3 * BLOCK))
def test_flex_attentions_blocks_hold_just_the_pairs_that_are_seen(
    data: st.DataObject, length: int, window: int | None
) -> None:
    """The kernel needs a GPU; here its table, and what it computes from the pairs, by torch's plain version of it."""
    cuts = sorted({0, length, *data.draw(st.lists(st.integers(0, length), max_size=8))})
    doc_ids = documents_of([[end - start for start, end in zip(cuts, cuts[1:], strict=False)], [length]])
    blocks = block_mask(window, doc_ids)
    mask = attention_mask(length, window, doc_ids, doc_ids.device)
    assert mask is not None
    edge = -(-length // BLOCK) * BLOCK
    pairs = mask[:, 0]
    # Queries past the end are whatever the last one is, keys there are seen by none.
    padded = torch.nn.functional.pad(pairs, (0, edge - length))[:, torch.arange(edge).clamp(max=length - 1)]
    tiles = padded.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).transpose(2, 3).flatten(3)
    assert torch.equal(blocks.to_dense()[:, 0].bool(), tiles.any(-1))
    for row in range(2):
        for query in range(tiles.shape[1]):
            count = int(blocks.full_kv_num_blocks[row, 0, query])
            full = blocks.full_kv_indices[row, 0, query, :count]
            assert bool(tiles[row, query, full].all())
    at = torch.arange(length)
    assert torch.equal(blocks.mask_mod(torch.arange(2)[:, None, None], at, at[:, None], at), pairs)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["950m", "125m-ls", "pro"])
@pytest.mark.parametrize("long", [False, True])
def test_recomputed_blocks_give_the_same_bits(
    name: str, bf16: bool, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if long:
        monkeypatch.setattr(attention, "MASKED", 8)
    torch.manual_seed(0)
    model = MobileLM(scaled_down(SIZES[name]))
    ids = torch.randint(512, (2, 41))
    doc_ids = documents_of([[7, 30, 3], [40]])
    results = []
    for on in (False, True):
        model.recompute_blocks(on)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model.loss(ids[:, :-1], ids[:, 1:], doc_ids)
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) == 1 + len(list(model.parameters()))
    assert all(torch.equal(kept, again) for kept, again in zip(*results, strict=True))


def test_recomputed_blocks_keep_their_inputs_alone() -> None:
    cfg = dataclasses.replace(scaled_down(SIZES["950m"]), layers=3)
    model, ids, kept = MobileLM(cfg), torch.zeros(1, 64, dtype=torch.int64), {}
    own = {parameter.data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own and tensor.shape[:2] == (1, 64):
            kept[tensor.data_ptr()] = tensor
        return tensor

    counts = []
    for on in (False, True):
        model.recompute_blocks(on)
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(ids)
        counts.append(sum(tensor.numel() for tensor in kept.values()))
    assert counts[1] < counts[0] / 5


def test_compiled_code_serves_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph where there are no documents, recomputed or not; where there are, none anew for other lengths."""
    monkeypatch.setattr(attention, "MASKED", 8)
    model = MobileLM(dataclasses.replace(scaled_down(SIZES["pro"]), layers=2, global_layers=(0,)))
    ids = torch.zeros(1, 40, dtype=torch.int64)
    model.recompute_blocks(True)
    whole = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(whole(ids), model(ids))
    model.recompute_blocks(False)
    torch.compiler.reset()
    graphs = 0

    def backend(graph: torch.fx.GraphModule, inputs: list[object]) -> object:
        nonlocal graphs
        graphs += 1
        return graph.forward

    compiled, counts = torch.compile(model, backend=backend, dynamic=False), []
    for row in ([10, 30], [10, 5, 25], [1, 2, 3, 34], [40]):
        doc_ids = documents_of([row])
        torch.testing.assert_close(compiled(ids, doc_ids), model(ids, doc_ids))
        counts.append(graphs)
    torch.compiler.reset()
    assert counts[0] == counts[-1] > 0


PEAK = """
import resource, torch
from dataclasses import replace
from training.model.decoder import MobileLM
from training.model.shapes import SIZES
torch.set_num_threads(1)
ids = torch.zeros(1, 32768, dtype=torch.int64)
documents = (torch.arange(32768) // 700).unsqueeze(0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for size, windows, doc_ids in (("950m", {}, None), ("950m", {}, documents), ("pro", {"global_layers": ()}, None),
                               ("pro", {"global_layers": ()}, documents)):
    small = dict(layers=1, dim=32, heads=2, kv_heads=1, head_dim=16, ffn=32, vocab_size=64, published=None)
    MobileLM(replace(SIZES[size], **small, **windows))(ids, doc_ids).sum().backward()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_narrow_layer_of_32768_positions_takes_less_than_a_mask() -> None:
    """A boolean mask of all pairs is 1,024 MiB, its copy in float32 four times that."""
    run = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert max(map(int, run.stdout.split())) < 500, run.stdout
