"""The decoder: exact counts, parity with the stock transformers classes, masks, sharing, and fresh weights."""

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from training.hf.weights import to_hf
from training.model.attention import Sight
from training.model.decoder import MobileLM
from training.model.shapes import SIZES, ModelConfig, parameter_count, scaled_down

transformers = pytest.importorskip("transformers")

V1 = ("125m", "350m", "600m", "1b", "1.5b")
R1 = ("140m", "360m", "950m", "tiny")


def build(cfg: ModelConfig, seed: int = 0) -> MobileLM:
    """A model with weights large enough that a wrong detail shows in the logits."""
    torch.manual_seed(seed)
    model = MobileLM(cfg)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Norm weights of one would hide a norm that is missing or misplaced.
            parameter.copy_(1 + 0.2 * torch.randn_like(parameter) if "norm" in name else 3 * parameter)
    return model


def ids_for(cfg: ModelConfig, batch: int = 2, length: int = 24, seed: int = 1) -> Tensor:
    return torch.randint(cfg.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def llama(cfg: ModelConfig) -> torch.nn.Module:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=cfg.dim,
            num_hidden_layers=cfg.layers * cfg.layer_repeat,
            num_attention_heads=cfg.heads,
            num_key_value_heads=cfg.kv_heads,
            intermediate_size=cfg.ffn,
            vocab_size=cfg.vocab_size,
            max_position_embeddings=cfg.max_positions,
            rms_norm_eps=cfg.norm_eps,
            tie_word_embeddings=True,
            attn_implementation="eager",
        )
    )


def llama4(cfg: ModelConfig) -> torch.nn.Module:
    config = transformers.Llama4TextConfig(
        hidden_size=cfg.dim,
        num_hidden_layers=cfg.layers,
        num_attention_heads=cfg.heads,
        num_key_value_heads=cfg.kv_heads,
        head_dim=cfg.head_dim,
        intermediate_size=8192,
        intermediate_size_mlp=cfg.ffn,
        vocab_size=cfg.vocab_size,
        max_position_embeddings=cfg.max_positions,
        rms_norm_eps=cfg.norm_eps,
        use_qk_norm=cfg.qk_norm,
        no_rope_layers=[1] * cfg.layers,
        moe_layers=[],
        attn_temperature_tuning=False,
        tie_word_embeddings=True,
        rope_theta=cfg.rope_theta,
        attn_implementation="eager",
    )
    return transformers.Llama4ForCausalLM(config)


def compare(model: MobileLM, reference: torch.nn.Module, length: int = 24) -> None:
    """Logits and every gradient within 1e-4 of the reference's, after loading the model's weights into it."""
    cfg = model.cfg
    missing, unexpected = reference.load_state_dict(to_hf(model.state_dict(), cfg), strict=False)
    assert not missing and not unexpected
    reference.tie_weights()
    ids = ids_for(cfg, length=length)
    direction = torch.randn(2, length, cfg.vocab_size, generator=torch.Generator().manual_seed(2))
    ours, theirs = model.logits(model(ids)), reference(input_ids=ids, use_cache=False).logits
    assert ours.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    (ours * direction).mean().backward()
    (theirs * direction).mean().backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, grad in to_hf({key: value for key, value in grads.items() if value is not None}, cfg).items():
        if name != "lm_head.weight":
            # Relative to the tensor's largest entry: absolute tolerances say nothing of small gradients.
            scale = expected[name].abs().max()
            torch.testing.assert_close(grad / scale, expected[name] / scale, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name, cfg in SIZES.items() if cfg.published])
def test_full_size_models_have_the_published_count(name: str) -> None:
    with torch.device("meta"):
        model = MobileLM(SIZES[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == SIZES[name].published


@pytest.mark.parametrize("name", V1)
def test_v1_equals_llama(name: str) -> None:
    cfg = scaled_down(SIZES[name])
    compare(build(cfg), llama(cfg))


@pytest.mark.parametrize("name", R1)
@pytest.mark.parametrize("qk_norm", [True, False])
def test_r1_equals_llama4(name: str, qk_norm: bool) -> None:
    cfg = dataclasses.replace(scaled_down(SIZES[name]), qk_norm=qk_norm)
    compare(build(cfg), llama4(cfg))


def test_125m_at_full_size_equals_llama() -> None:
    cfg = SIZES["125m"]
    torch.manual_seed(0)
    model, reference = MobileLM(cfg), llama(cfg)
    reference.load_state_dict(to_hf(model.state_dict(), cfg))
    ids = ids_for(cfg, batch=1, length=16)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(model(ids)), reference(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["125m-ls", "350m-ls"])
def test_sharing_runs_each_block_twice_in_a_row(name: str) -> None:
    cfg = scaled_down(SIZES[name])
    model, ids = build(cfg), ids_for(cfg)
    hidden = model.embed_tokens(ids)
    cos, sin = model.rope(ids.shape[1], None)
    for block in model.layers:
        hidden = block(block(hidden, cos, sin, Sight()), cos, sin, Sight())
    assert torch.equal(model(ids), model.norm(hidden))
    assert not torch.allclose(model(ids), build(dataclasses.replace(cfg, layer_repeat=1))(ids), atol=1e-2)
    with torch.no_grad():
        reference = llama(cfg)
        reference.load_state_dict(to_hf(model.state_dict(), cfg))
        torch.testing.assert_close(model.logits(model(ids)), reference(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def brute_force_hidden(model: MobileLM, ids: Tensor, visible: list[Tensor]) -> Tensor:
    """The decoder with attention written out: softmax over scores whose invisible keys (per layer) are -inf."""
    cfg = model.cfg
    cos, sin = model.rope(ids.shape[1], None)
    x = model.embed_tokens(ids)
    from training.model.attention import rotate

    for index, block in enumerate(model.layers):
        attention, normed = block.self_attn, block.input_layernorm(x)
        heads = (
            projection(normed).unflatten(-1, (-1, cfg.head_dim))
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k, v = heads
        q, k = rotate(q, cos, sin, cfg.rope_layout), rotate(k, cos, sin, cfg.rope_layout)
        group = cfg.heads // cfg.kv_heads
        mixed = torch.zeros_like(q)
        for head in range(cfg.heads):
            scores = q[:, :, head] @ k[:, :, head // group].transpose(1, 2) / cfg.head_dim**0.5
            weights = scores.masked_fill(~visible[index], float("-inf")).softmax(-1)
            mixed[:, :, head] = weights @ v[:, :, head // group]
        x = x + attention.o_proj(mixed.flatten(2))
        x = x + block.mlp(block.post_attention_layernorm(x))
    return model.norm(x)


@pytest.mark.parametrize("length", [12, 16, 17, 40])
def test_pro_masks_equal_brute_force(length: int) -> None:
    cfg = scaled_down(SIZES["pro"])
    model, ids = build(cfg), ids_for(cfg, length=length)
    visible = [torch.zeros(length, length, dtype=torch.bool) for _ in range(cfg.layers)]
    for layer in range(cfg.layers):
        for query in range(length):
            for key in range(length):
                reach = length if layer in (0, 3) else 16
                visible[layer][query, key] = key <= query and query - key < reach
    torch.testing.assert_close(model(ids), brute_force_hidden(model, ids, visible), atol=1e-4, rtol=1e-4)


def test_windows_matter() -> None:
    cfg = scaled_down(SIZES["pro"])
    ids = ids_for(cfg, length=40)
    everywhere = dataclasses.replace(cfg, global_layers=(0, 1, 2, 3))
    assert not torch.allclose(build(cfg)(ids), build(everywhere)(ids), atol=1e-3)


@pytest.mark.parametrize("name", ["125m", "950m", "pro"])
def test_document_mask_equals_separate_documents(name: str) -> None:
    cfg = scaled_down(SIZES[name])
    model, ids = build(cfg), ids_for(cfg, batch=2, length=40)
    cuts = ((0, 7, 30, 40), (0, 20, 21, 40))
    doc_ids = torch.zeros_like(ids)
    for row, edges in enumerate(cuts):
        for number, (start, end) in enumerate(itertools.pairwise(edges)):
            doc_ids[row, start:end] = number
    together = model(ids, doc_ids)
    for row, edges in enumerate(cuts):
        for start, end in itertools.pairwise(edges):
            alone = model(ids[row : row + 1, start:end])
            torch.testing.assert_close(together[row : row + 1, start:end], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together, model(ids), atol=1e-3)


def test_positions_are_relative_and_can_be_given() -> None:
    cfg = scaled_down(SIZES["140m"])
    model, ids = build(cfg), ids_for(cfg)
    positions = torch.arange(ids.shape[1]).expand(2, -1)
    assert torch.equal(model(ids, positions=positions), model(ids))
    torch.testing.assert_close(model(ids, positions=positions + 100), model(ids), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(model(ids, positions=positions * 3), model(ids), atol=1e-2)


def test_no_position_sees_the_future() -> None:
    for name in ("125m-ls", "950m", "pro"):
        cfg = scaled_down(SIZES[name])
        model, ids = build(cfg), ids_for(cfg, length=30)
        changed = ids.clone()
        changed[:, 20:] = (changed[:, 20:] + 1) % cfg.vocab_size
        assert torch.equal(model(ids)[:, :20], model(changed)[:, :20])


def test_too_long_a_sequence_is_refused() -> None:
    cfg = dataclasses.replace(scaled_down(SIZES["125m"]), max_positions=16)
    with pytest.raises(ValueError, match="17 positions exceed max_positions 16"):
        MobileLM(cfg)(ids_for(cfg, length=17))


def test_fresh_weights_are_normal_and_repeatable() -> None:
    cfg = scaled_down(SIZES["950m"])
    torch.manual_seed(5)
    first = MobileLM(cfg).state_dict()
    torch.manual_seed(5)
    second = MobileLM(cfg).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(name.startswith("rope") for name in first)
    for name, tensor in first.items():
        if "norm" in name:
            assert bool((tensor == 1).all())
        else:
            assert tensor.std().item() == pytest.approx(0.02, rel=0.1) and abs(tensor.mean().item()) < 0.002


def test_meta_model_is_whole_after_init_weights() -> None:
    cfg = scaled_down(SIZES["950m"])
    with torch.device("meta"):
        model = MobileLM(cfg)
    model.to_empty(device="cpu")
    torch.manual_seed(5)
    model.init_weights()
    fresh = MobileLM(cfg)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model(ids_for(cfg)), fresh(ids_for(cfg)))


def test_rope_tables_stay_float32_in_a_bfloat16_model() -> None:
    model = MobileLM(scaled_down(SIZES["125m"]))
    before = model.rope.cos.clone()
    model.to(torch.bfloat16)
    assert model.rope.cos.dtype == torch.float32 and torch.equal(model.rope.cos, before)
    assert model(ids_for(model.cfg)).dtype == torch.bfloat16


def test_training_is_bit_exact_between_runs() -> None:
    cfg = scaled_down(SIZES["140m"])
    results = []
    for _ in range(2):
        model = build(cfg)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for step in range(3):
            ids = ids_for(cfg, length=33, seed=step)
            loss = model.loss(ids[:, :-1], ids[:, 1:], chunk=16)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        results.append((loss.item(), model.state_dict()))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(value, results[1][1][name]) for name, value in results[0][1].items())


def test_forward_traces_into_one_graph() -> None:
    # All variations at once: tracing takes seconds per model.
    cfg = dataclasses.replace(scaled_down(SIZES["pro"]), layers=2, layer_repeat=2, global_layers=(0,), qk_norm=True)
    model, ids = build(cfg), ids_for(cfg)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids), model(ids), atol=1e-5, rtol=1e-5)


def test_counts_of_scaled_models_follow_the_formula() -> None:
    for cfg in map(scaled_down, SIZES.values()):
        assert sum(parameter.numel() for parameter in MobileLM(cfg).parameters()) == parameter_count(cfg)
