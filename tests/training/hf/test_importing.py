"""Import: the way back from a Hugging Face folder, and a named reason for every folder that does not fit."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from corpus.base.errors import UserError
from training.hf.exporting import export_hf
from training.hf.importing import import_hf
from training.model.decoder import MobileLM
from training.model.saved import load_model
from training.model.shapes import SIZES, ModelConfig, scaled_down

transformers = pytest.importorskip("transformers")


def build(cfg: ModelConfig) -> MobileLM:
    """A model with weights large enough that a wrong detail shows in the logits."""
    torch.manual_seed(0)
    model = MobileLM(cfg)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(1 + 0.2 * torch.randn_like(parameter) if "norm" in name else 3 * parameter)
    return model


def ids_for(cfg: ModelConfig, length: int = 24) -> torch.Tensor:
    return torch.randint(cfg.vocab_size, (2, length), generator=torch.Generator().manual_seed(1))


def exported(cfg: ModelConfig, folder: Path) -> MobileLM:
    model = build(cfg)
    export_hf(model.state_dict(), cfg, folder)
    return model


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("name", SIZES)
def test_import_undoes_export(name: str, tmp_path: Path) -> None:
    cfg = scaled_down(SIZES[name])
    model = exported(cfg, tmp_path / "hf")
    assert import_hf(tmp_path / "hf", cfg, tmp_path / "in") == (cfg, [])
    state, back = load_model(tmp_path / "in")
    assert back == cfg
    expected = model.state_dict()
    assert set(state) == set(expected) and all(torch.equal(state[key], expected[key]) for key in state)


@pytest.mark.parametrize("name", ["125m", "350m-ls", "950m", "pro", "qwen3"])
def test_folders_saved_by_transformers_come_in(name: str, tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["125m" if name == "qwen3" else name])
    cfg = dataclasses.replace(cfg, qk_norm=cfg.qk_norm or name == "qwen3")
    model = exported(cfg, tmp_path / "hf")
    saved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    saved.save_pretrained(tmp_path / "saved", max_shard_size="200KB")
    assert (tmp_path / "saved" / "model.safetensors.index.json").exists()
    import_hf(tmp_path / "saved", cfg, tmp_path / "in")
    state, back = load_model(tmp_path / "in")
    fresh = MobileLM(back)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(ids_for(cfg)), model(ids_for(cfg)))


def test_settings_a_recipe_can_override_are_taken_over_and_named(tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["950m"])
    trained = dataclasses.replace(cfg, rope_theta=8e6, qk_norm=False)
    exported(trained, tmp_path / "hf")
    actual, notes = import_hf(tmp_path / "hf", cfg, tmp_path / "in")
    assert actual == trained == load_model(tmp_path / "in")[1]
    assert len(notes) == 2 and "rope_theta is 8000000.0" in notes[0] and "training.model.qk_norm" in notes[1]

    pro = scaled_down(SIZES["pro"])
    trained = dataclasses.replace(pro, global_layers=(1, 3), qk_norm=True)
    exported(trained, tmp_path / "pro")
    assert import_hf(tmp_path / "pro", pro, tmp_path / "pro_in")[0] == trained


def test_tiny_takes_the_vocabulary_of_the_folder(tmp_path: Path) -> None:
    cfg = SIZES["tiny"].with_vocab(300)
    exported(cfg, tmp_path / "hf")
    assert import_hf(tmp_path / "hf", SIZES["tiny"], tmp_path / "in")[0] == cfg


def test_published_sharing_layout_holds_each_block_once(tmp_path: Path) -> None:
    shared, plain = scaled_down(SIZES["125m-ls"]), scaled_down(SIZES["125m"])
    model = exported(plain, tmp_path / "hf")
    edit_config(tmp_path / "hf", model_type="mobilellm", layer_sharing=True, tie_word_embeddings=False)
    import_hf(tmp_path / "hf", shared, tmp_path / "in")
    state, cfg = load_model(tmp_path / "in")
    assert cfg.layer_repeat == 2 and torch.equal(state["norm.weight"], model.norm.weight)
    with pytest.raises(UserError, match="the size shares no layers"):
        import_hf(tmp_path / "hf", plain, tmp_path / "other")


def test_shared_layers_that_drifted_apart_are_refused(tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["125m-ls"])
    exported(cfg, tmp_path / "hf")
    edit_weights(tmp_path / "hf", lambda tensors: tensors["model.layers.3.mlp.up_proj.weight"].add_(1))
    with pytest.raises(UserError, match=r"layers\.3\.mlp\.up_proj\.weight differs from the layer it shares"):
        import_hf(tmp_path / "hf", cfg, tmp_path / "in")


def test_every_mismatch_is_named(tmp_path: Path) -> None:
    exported(scaled_down(SIZES["360m"]), tmp_path / "hf")
    with pytest.raises(UserError) as caught:
        import_hf(tmp_path / "hf", scaled_down(SIZES["140m"]), tmp_path / "in")
    text = caught.value.one_line()
    assert "hidden_size is 128, the size has 96" in text and "num_attention_heads is 8, the size has 6" in text
    assert not (tmp_path / "in").exists()


def test_the_size_that_fits_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", "hidden_size": 960, "num_hidden_layers": 32, "vocab_size": 32_000})
    )
    with pytest.raises(UserError, match="Its shape is that of --size 350m"):
        import_hf(tmp_path, SIZES["125m"], tmp_path / "in")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama4_text"}, "model_type is 'llama4_text', but size 125m-scaled is stored as llama"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling is"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"rms_norm_eps": 1e-6}, "rms_norm_eps is 1e-06"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu"),
        ({"rope_theta": "big"}, "rope_theta must be a positive number"),
        ({"rope_theta": None}, "rope_theta must be a positive number"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config is"),
        ({"num_attention_heads": "six", "head_dim": None}, "num_attention_heads is six"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_scaling is"),
    ],
)
def test_config_that_computes_something_else_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["125m"])
    exported(cfg, tmp_path / "hf")
    edit_config(tmp_path / "hf", **change)
    with pytest.raises(UserError, match=message):
        import_hf(tmp_path / "hf", cfg, tmp_path / "in")


def test_nope_layers_and_experts_are_refused(tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["950m"])
    exported(cfg, tmp_path / "hf")
    edit_config(tmp_path / "hf", no_rope_layers=[1, 1, 1, 0], moe_layers=[1])
    with pytest.raises(UserError, match=r"no_rope_layers is \[1, 1, 1, 0\].*moe_layers is \[1\]"):
        import_hf(tmp_path / "hf", cfg, tmp_path / "in")


def test_layers_that_see_something_else_are_refused(tmp_path: Path) -> None:
    pro, r1 = scaled_down(SIZES["pro"]), scaled_down(SIZES["950m"])
    exported(pro, tmp_path / "pro")
    for types, message in (
        (None, "layer_types is missing"),
        (["full_attention", "chunked_attention"] * 2, "layer_types has 'chunked_attention'"),
    ):
        edit_config(tmp_path / "pro", layer_types=types)
        with pytest.raises(UserError, match=message):
            import_hf(tmp_path / "pro", pro, tmp_path / "in")
    edit_config(tmp_path / "pro", use_sliding_window=False, layer_types=["full_attention"] * 4)
    with pytest.raises(UserError, match="sliding_window is None"):
        import_hf(tmp_path / "pro", pro, tmp_path / "in")
    exported(r1, tmp_path / "r1")
    # The published folders have no layer_types, which makes every layer chunked, and chunks as long as the model.
    edit_config(tmp_path / "r1", layer_types=None)
    assert import_hf(tmp_path / "r1", r1, tmp_path / "published")[0] == r1
    edit_config(tmp_path / "r1", attention_chunk_size=64)
    with pytest.raises(UserError, match="attention_chunk_size is 64, less than the 32768 positions"):
        import_hf(tmp_path / "r1", r1, tmp_path / "in")


def test_rope_base_that_is_not_there_is_the_class_s_own(tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["950m"])
    exported(cfg, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    del config["rope_theta"]
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").config.rope_theta
    assert import_hf(tmp_path / "hf", cfg, tmp_path / "in")[0].rope_theta == theirs == 500_000


def test_untied_config_without_a_head_is_refused(tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["125m"])
    exported(cfg, tmp_path / "hf")
    edit_config(tmp_path / "hf", tie_word_embeddings=False)
    edit_weights(tmp_path / "hf", lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(UserError, match=r"tie_word_embeddings is false and lm_head\.weight is missing"):
        import_hf(tmp_path / "hf", cfg, tmp_path / "in")
    # The published v1 folders.
    edit_config(tmp_path / "hf", share_embedding=True)
    import_hf(tmp_path / "hf", cfg, tmp_path / "in")


def test_untied_head_is_refused_and_a_lone_head_is_the_embedding(tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["1.5b"])
    model = exported(cfg, tmp_path / "hf")
    edit_weights(tmp_path / "hf", lambda tensors: tensors["lm_head.weight"].mul_(2))
    with pytest.raises(UserError, match=r"untied checkpoint, with 81,920 parameters more"):
        import_hf(tmp_path / "hf", cfg, tmp_path / "in")
    # One of the two tied tensors may be absent, either of them.
    for dropped in ("lm_head.weight", "model.embed_tokens.weight"):
        folder = tmp_path / dropped
        exported(cfg, folder)
        edit_weights(folder, lambda tensors, name=dropped: tensors.pop(name))  # type: ignore[misc]
        import_hf(folder, cfg, tmp_path / f"{dropped}-in")
        state, _ = load_model(tmp_path / f"{dropped}-in")
        assert torch.equal(state["embed_tokens.weight"], model.embed_tokens.weight)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), r"model\.norm\.weight is missing"),
        (lambda tensors: tensors.update({"model.extra": torch.ones(1)}), r"model\.extra is not part of the model"),
        (
            lambda tensors: tensors.update({"model.layers.1.mlp.up_proj.weight": torch.ones(3, 4)}),
            r"layers\.1\.mlp\.up_proj\.weight is \(3, 4\), the size has \(256, 96\)",
        ),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.ones(96, dtype=torch.int8)}),
            r"model\.norm\.weight holds int8",
        ),
    ],
)
def test_odd_tensors_are_named(edit: Callable[[dict[str, torch.Tensor]], Any], message: str, tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["125m"])
    exported(cfg, tmp_path / "hf")
    edit_weights(tmp_path / "hf", edit)
    with pytest.raises(UserError, match=message):
        import_hf(tmp_path / "hf", cfg, tmp_path / "in")


def test_unreadable_folders_are_refused(tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["125m"])
    with pytest.raises(UserError, match="no such file"):
        import_hf(tmp_path, cfg, tmp_path / "in")
    exported(cfg, tmp_path / "hf")
    weights = tmp_path / "hf" / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="is not a complete safetensors file"):
        import_hf(tmp_path / "hf", cfg, tmp_path / "in")
    weights.unlink()
    (tmp_path / "hf" / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match=r"Pickled weights .* are never read"):
        import_hf(tmp_path / "hf", cfg, tmp_path / "in")
    index = tmp_path / "hf" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../outside.safetensors"}}))
    with pytest.raises(UserError, match="must name files of this folder"):
        import_hf(tmp_path / "hf", cfg, tmp_path / "in")
    with pytest.raises(UserError, match="no such file"):
        load_model(tmp_path / "in")


def test_command_writes_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from training.import_hf import main

    cfg = SIZES["tiny"].with_vocab(300)
    exported(cfg, tmp_path / "hf")
    main([str(tmp_path / "hf"), "--size", "tiny", "--to", str(tmp_path / "in")])
    assert capsys.readouterr().out.endswith(f"train on with --load {tmp_path / 'in'}\n")
    assert load_model(tmp_path / "in")[1] == cfg
    exported(dataclasses.replace(cfg, rope_theta=8e6, qk_norm=False), tmp_path / "other")
    main([str(tmp_path / "other"), "--size", "tiny", "--to", str(tmp_path / "other-in")])
    flags = "--set model.rope_theta=8000000.0 --set model.qk_norm=false"
    assert f"--load {tmp_path / 'other-in'} {flags}\n" in capsys.readouterr().out
