"""Export: folders that stock transformers classes load without remote code, with the same logits."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from corpus.base.errors import UserError
from corpus.records.manifest import Manifest, ManifestSource
from corpus.records.stream import Documents, Tokenizer
from training.hf.exporting import export_hf
from training.model.decoder import MobileLM
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


@pytest.fixture(scope="session")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer of 258 ids: <s> and </s> first, then the bytes."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Fast(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def manifest() -> Manifest:
    """What a build of two sources records."""
    sources = {
        name: ManifestSource(
            source=name,
            stream=f"../streams/{name}-0123456789ab",
            stream_fingerprint="f" * 64,
            revision="abc1234",
            licence=licence,
            redistributable=licence == "Apache-2.0",
            documents=Documents(read=10, kept=10),
            tokens=6500,
            samples=100,
            text_bytes=26_000,
            weight_asked=1.0,
            weight=0.5,
            samples_drawn=150,
            tokens_drawn=9600,
            epochs=1.5,
        )
        for name, licence in (("prose", "Apache-2.0"), ("code", "Odd | licence"))
    }
    return Manifest(
        recipe="small",
        family="sample",
        phase="only",
        recipe_sha256="a" * 64,
        seq_len=64,
        boundary="both",
        document_mask=False,
        tokenizer=Tokenizer(name="bytes", sha256="b" * 64, vocab_size=258, bos_id=0, eos_id=1, path="tokenizers/x"),
        tokens=19_200,
        steps=30,
        global_batch=10,
        seed=17,
        weight_sum=2.0,
        sources=sources,
    )


EXPORTED = [scaled_down(cfg) for cfg in SIZES.values()]
EXPORTED += [dataclasses.replace(scaled_down(SIZES[name]), qk_norm=True) for name in ("125m", "pro")]
EXPORTED += [dataclasses.replace(scaled_down(SIZES["140m"]), qk_norm=False)]


@pytest.mark.parametrize("cfg", EXPORTED, ids=lambda cfg: f"{cfg.name}-{'qk' if cfg.qk_norm else 'plain'}")
def test_exported_folder_loads_with_the_same_logits(cfg: ModelConfig, tmp_path: Path) -> None:
    model, out = build(cfg), tmp_path / "out"
    export_hf(model.state_dict(), cfg, out)
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ids = ids_for(cfg, length=40)
    with torch.no_grad():
        expected = model.logits(model(ids))
        torch.testing.assert_close(loaded(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
        # Step by step through the key/value cache, as generation runs it.
        past, pieces = None, []
        for start in range(0, 40, 8):
            step = loaded(input_ids=ids[:, start : start + 8], past_key_values=past, use_cache=True)
            past = step.past_key_values
            pieces.append(step.logits)
        torch.testing.assert_close(torch.cat(pieces, dim=1), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("125m", "LlamaForCausalLM"),
        ("350m-ls", "LlamaForCausalLM"),
        ("950m", "Llama4ForCausalLM"),
        ("tiny", "Llama4ForCausalLM"),
        ("pro", "SmolLM3ForCausalLM"),
    ],
)
def test_each_family_has_its_class(name: str, architecture: str, tmp_path: Path) -> None:
    cfg = scaled_down(SIZES[name])
    export_hf(build(cfg).state_dict(), cfg, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == [architecture] and "auto_map" not in config
    assert config["tie_word_embeddings"] is True


def test_tied_weight_is_written_under_both_names(tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["140m"])
    export_hf(build(cfg).state_dict(), cfg, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])


def test_folder_has_tokenizer_and_card(tmp_path: Path, tokenizer_json: Path) -> None:
    cfg, out = scaled_down(SIZES["tiny"]), tmp_path / "out"
    export_hf(
        build(cfg).state_dict(),
        cfg,
        out,
        tokenizer_json=tokenizer_json,
        manifest=manifest(),
        teacher="someone/teacher-8b",
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.eos_token_id) == ("<s>", "</s>", 1)
    assert tokenizer.decode(tokenizer("let x = 'é'")["input_ids"]) == "let x = 'é'"
    assert transformers.GenerationConfig.from_pretrained(out).eos_token_id == 1
    config = transformers.AutoConfig.from_pretrained(out)
    assert (config.bos_token_id, config.max_position_embeddings) == (0, 64)
    card = (out / "README.md").read_text()
    assert "| prose | abc1234 | Apache-2.0 | yes | 9,600 | 50.00% | 1.50 |" in card
    assert "| code | abc1234 | Odd / licence | no |" in card
    assert manifest().fingerprint in card and "someone/teacher-8b" in card and "Llama4ForCausalLM" in card
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert model.generate(torch.tensor([[0, 9, 4]]), max_new_tokens=4, do_sample=False).shape[1] <= 7


def test_card_of_a_shared_model_says_that_layers_repeat(tmp_path: Path) -> None:
    cfg = scaled_down(SIZES["125m-ls"])
    export_hf(build(cfg).state_dict(), cfg, tmp_path / "out")
    assert "holds 8 layers, 2 equal copies of each block" in (tmp_path / "out" / "README.md").read_text()


def test_refusals_leave_nothing_behind(tmp_path: Path, tokenizer_json: Path) -> None:
    cfg = scaled_down(SIZES["125m"])
    state = build(cfg).state_dict()
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        export_hf(state, cfg, taken)
    small = cfg.with_vocab(200)
    with pytest.raises(UserError, match="has ids up to 257, more than the 200"):
        export_hf(build(small).state_dict(), small, tmp_path / "out", tokenizer_json=tokenizer_json)
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(UserError, match=r"not a readable tokenizer\.json"):
        export_hf(state, cfg, tmp_path / "out", tokenizer_json=broken)
    odd = dataclasses.replace(scaled_down(SIZES["pro"]), rope_layout="interleaved")
    with pytest.raises(UserError, match="no stock transformers class"):
        export_hf(build(odd).state_dict(), odd, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.json", "taken"]


def test_command_exports_the_newest_checkpoint_of_a_run(tmp_path: Path, tokenizer_json: Path) -> None:
    from training.export import main
    from training.run import checkpoint

    cfg = scaled_down(SIZES["tiny"])
    model, run = build(cfg), tmp_path / "run"
    (run / "tokenizer").mkdir(parents=True)
    shutil.copy(tokenizer_json, run / "tokenizer" / "tokenizer.json")
    manifest().write(run)
    phases = [
        {"recipe": {"name": "small", "training": {"distillation": {"teacher": "someone/teacher-8b"}}}},
        {"recipe": {"name": "later", "training": {"distillation": None}}},
    ]
    (run / "run.json").write_text(json.dumps({"size": "tiny", "phases": phases}))
    facts = {
        "phase": 0,
        "recipe": "small",
        "tokens": 0,
        "finished": False,
        "model": dataclasses.asdict(cfg),
        "data": {},
        "world_size": 1,
        "microbatch": 1,
    }
    for step, weights in (
        (1, {k: torch.zeros_like(v) for k, v in model.state_dict().items()}),
        (2, model.state_dict()),
    ):
        checkpoint.write(run / "checkpoints", {**facts, "step": step}, weights, {})
    main([str(run), "--to", str(tmp_path / "out")])
    loaded, ids = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out"), ids_for(cfg)
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model.logits(model(ids)), atol=1e-4, rtol=1e-4)
    assert "someone/teacher-8b" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(UserError, match="no such file"):
        main([str(tmp_path / "nothing"), "--to", str(tmp_path / "other")])
