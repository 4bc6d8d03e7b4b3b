"""Export: folders that stock transformers classes load without remote code, with the same logits."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from corpus.base.errors import UserError
from corpus.base.files import read_json, write_json
from corpus.recipe.model import Recipe
from corpus.records.manifest import Manifest, ManifestSource, load_manifest
from corpus.records.stream import Documents
from corpus.records.stream import Tokenizer as TokenizerFacts
from tests.training.trainer_kit import recipe_dict
from training.data.elastic import fingerprint_fields
from training.evaluation.scoring import Scorer
from training.evaluation.subject import RunTokenizer, load_subject
from training.hf.exporting import export_hf
from training.model.decoder import MobileLM
from training.model.shapes import SIZES, ModelConfig, scaled_down
from training.run import checkpoint

transformers = pytest.importorskip("transformers")


def build(cfg: ModelConfig, seed: int = 0) -> MobileLM:
    """A model with weights large enough that a wrong detail shows in the logits."""
    torch.manual_seed(seed)
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
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
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
        tokenizer=TokenizerFacts(
            name="bytes", sha256="b" * 64, vocab_size=258, bos_id=0, eos_id=1, path="tokenizers/x"
        ),
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


def test_folder_has_its_tokenizer(tmp_path: Path, tokenizer_json: Path) -> None:
    cfg, out = scaled_down(SIZES["tiny"]), tmp_path / "out"
    export_hf(
        build(cfg).state_dict(),
        cfg,
        out,
        tokenizer_json=tokenizer_json,
        manifest=manifest(),
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.eos_token_id) == ("<s>", "</s>", 1)
    assert tokenizer.decode(tokenizer("let x = 'é'")["input_ids"]) == "<s>let x = 'é'"
    assert transformers.GenerationConfig.from_pretrained(out).eos_token_id == [1, 0]
    config = transformers.AutoConfig.from_pretrained(out)
    assert (config.bos_token_id, config.max_position_embeddings) == (0, 64)
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


def phase_recipe(name: str, seq_len: int, boundary: str, teacher: str | None = None) -> dict[str, Any]:
    """A phase as run.json has it."""
    recipe = {**recipe_dict(name, 30), "seq_len": seq_len, "boundary": boundary, "tokens": 300 * seq_len}
    recipe["training"] |= {"global_batch": 10, "distillation": {"teacher": teacher} if teacher else None}
    return Recipe.model_validate(recipe).model_dump(mode="json")


class Run:
    """A run's folder as training leaves it, without the training."""

    def __init__(self, root: Path, tokenizer_json: Path, cfg: ModelConfig, phases: list[dict[str, Any]]) -> None:
        self.root, self.cfg, self.phases = root, cfg, phases
        (root / "tokenizer").mkdir(parents=True)
        shutil.copy(tokenizer_json, root / "tokenizer" / "tokenizer.json")
        self.sha256 = hashlib.sha256(tokenizer_json.read_bytes()).hexdigest()
        described = [
            {"recipe": phase, "manifest": self.enter(phase), "steps": 30, "tokens": phase["tokens"]} for phase in phases
        ]
        write_json(root / "run.json", {"run": root.name, "size": cfg.name, "phases": described, "starts": []})

    def enter(self, phase: dict[str, Any]) -> str:
        """Leave the phase's manifest as training does; returns its fingerprint."""
        facts = manifest()
        facts = facts.model_copy(
            update={
                "recipe": phase["name"],
                "seq_len": phase["seq_len"],
                "boundary": phase["boundary"],
                "tokenizer": facts.tokenizer.model_copy(update={"sha256": self.sha256}),
            }
        )
        facts.write(self.root)
        (self.root / "manifests").mkdir(exist_ok=True)
        fingerprint = load_manifest(self.root).fingerprint
        kept = self.root / "manifests" / f"{phase['name']}-{fingerprint[:16]}.json"
        shutil.copy(self.root / "manifest.json", kept)
        return fingerprint

    def fields(self, phase: int) -> dict[str, Any]:
        recipe = self.phases[phase]
        return fingerprint_fields(
            manifest=read_json(self.root / "run.json")["phases"][phase]["manifest"],
            mixture=[("prose", 1.0), ("code", 1.0)],
            seed=17,
            seq_len=recipe["seq_len"],
            global_batch=10,
            canonical_nodes=1,
            total_steps=30,
            virtual_epoch_samples=recipe["training"]["virtual_epoch_samples"],
        )

    def save(self, phase: int, step: int, model: MobileLM) -> Path:
        facts = {
            "phase": phase,
            "recipe": self.phases[phase]["name"],
            "step": step,
            "tokens": step * 10 * self.phases[phase]["seq_len"],
            "finished": step == 30,
            "model": dataclasses.asdict(model.cfg),
            "data": {"step": step, "fields": self.fields(phase), "changes": []},
            "world_size": 1,
            "microbatch": 1,
        }
        return checkpoint.write(self.root / "checkpoints", facts, model.state_dict(), {})


def export(path: Path, out: Path) -> Path:
    from training.export import main

    main([str(path), "--to", str(out)])
    return out


def same_model(out: Path, model: MobileLM) -> bool:
    loaded, ids = transformers.AutoModelForCausalLM.from_pretrained(out), ids_for(model.cfg)
    with torch.no_grad():
        return torch.allclose(loaded(input_ids=ids).logits, model.logits(model(ids)), atol=1e-4, rtol=1e-4)


def test_command_exports_the_newest_checkpoint_or_the_one_named(tmp_path: Path, tokenizer_json: Path) -> None:
    cfg = scaled_down(SIZES["tiny"])
    run = Run(tmp_path / "run", tokenizer_json, cfg, [phase_recipe("small", 64, "both", "someone/teacher-8b")])
    old, new = build(cfg, seed=1), build(cfg)
    first = run.save(0, 9, old)
    run.save(0, 10, new)
    assert same_model(export(run.root, tmp_path / "new"), new)
    assert same_model(export(first, tmp_path / "old"), old)
    assert "someone/teacher-8b" in (tmp_path / "new" / "README.md").read_text()


def test_weights_are_exported_with_what_belongs_to_their_phase(tmp_path: Path, tokenizer_json: Path) -> None:
    """RUN/manifest.json is of the phase entered last, which may not have saved a checkpoint yet."""
    cfg = scaled_down(SIZES["tiny"])
    later = dataclasses.replace(cfg, rope_theta=8e6)
    phases = [phase_recipe("early", 32, "bos", "someone/teacher-8b"), phase_recipe("late", 64, "eos")]
    run = Run(tmp_path / "run", tokenizer_json, cfg, phases)
    run.save(0, 30, build(cfg))
    config = json.loads((export(run.root, tmp_path / "early") / "config.json").read_text())
    assert (config["max_position_embeddings"], config["rope_theta"]) == (32, 10_000.0)
    card = (tmp_path / "early" / "README.md").read_text()
    assert "trained on early" in card and "someone/teacher-8b" in card
    run.save(1, 1, build(later))
    config = json.loads((export(run.root, tmp_path / "late") / "config.json").read_text())
    assert (config["max_position_embeddings"], config["rope_theta"]) == (64, 8e6)
    card = (tmp_path / "late" / "README.md").read_text()
    # Both phases made these weights: 30 steps of 10 x 32 tokens, and one of 10 x 64.
    assert "trained on late" in card and "10,240 tokens in all" in card
    assert "## Data of early" in card and "## Data of late" in card and "someone/teacher-8b" in card
    assert "| prose | abc1234 | Apache-2.0 | yes | 4,800 | 50.00% | 1.50 |" in card
    assert "| code | abc1234 | Odd / licence | no | about 320 | 50.00% | 0.05 |" in card


def test_what_is_no_run_is_refused(tmp_path: Path, tokenizer_json: Path) -> None:
    cfg = scaled_down(SIZES["tiny"])
    run = Run(tmp_path / "run", tokenizer_json, cfg, [phase_recipe("small", 64, "both")])
    with pytest.raises(UserError, match="no checkpoint here"):
        export(run.root, tmp_path / "out")
    path = run.save(0, 10, build(cfg))
    shutil.copytree(path, tmp_path / "alone" / "checkpoints" / path.name)
    with pytest.raises(UserError, match="lies outside a run"):
        export(tmp_path / "alone", tmp_path / "out")
    with pytest.raises(UserError, match="no checkpoint here"):
        export(tmp_path / "nothing", tmp_path / "out")
    (run.root / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="is not the tokenizer 'bytes' that small was built with"):
        export(run.root, tmp_path / "out")
    (path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="does not match its recorded size and hash"):
        export(run.root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


LLAMA_2 = processors.TemplateProcessing(
    single="</s> $A <s>", pair="</s> $A <s> $B", special_tokens=[("<s>", 0), ("</s>", 1)]
)
"""What an upstream file may add by itself: not what our documents had."""

TEXTS = ("Question:", "", " x", "def f(x):\n    return 'é'", "two\n\ndocuments")


@pytest.mark.parametrize("boundary", ["bos", "both", "eos"])
@pytest.mark.parametrize(
    "upstream",
    [None, processors.ByteLevel(), LLAMA_2, processors.Sequence([processors.ByteLevel(), LLAMA_2])],
    ids=["none", "bytes", "template", "sequence"],
)
def test_exported_tokenizer_gives_the_ids_of_the_training_data(
    boundary: str, upstream: Any, tmp_path: Path, tokenizer_json: Path
) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    if upstream:
        tokenizer.post_processor = upstream
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    cfg = scaled_down(SIZES["tiny"])
    run = Run(tmp_path / "run", tmp_path / "tokenizer.json", cfg, [phase_recipe("small", 64, boundary)])
    model = build(cfg)
    run.save(0, 30, model)
    out = export(run.root, tmp_path / "out")
    theirs, ours = transformers.AutoTokenizer.from_pretrained(out), RunTokenizer(tmp_path / "tokenizer.json")
    start = [] if boundary == "eos" else [0]
    for text in TEXTS:
        assert theirs(text)["input_ids"] == start + ours.encode(text)
        assert theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True) == text
    assert theirs("a", "b")["input_ids"] == [*start, *ours.encode("a"), *start, *ours.encode("b")]
    # The id that lm-eval scores an empty context behind, and ours.
    scorer = Scorer(load_subject(run.root, torch.device("cpu")), 4)
    assert theirs.bos_token_id == scorer.start_id
    generation = transformers.GenerationConfig.from_pretrained(out)
    assert set(generation.eos_token_id) == scorer.stops and generation.eos_token_id[0] == theirs.eos_token_id == 1
    # The lines every tutorial starts with.
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out)
    prompt = theirs("Question:", return_tensors="pt")
    written = loaded.generate(**prompt, max_new_tokens=20, do_sample=False)
    assert written.shape[1] > prompt["input_ids"].shape[1]
    both = theirs(["Question: who?", "Q"], return_tensors="pt", padding=True, padding_side="left")
    assert loaded.generate(**both, max_new_tokens=2, do_sample=False).shape[0] == 2


def test_scores_of_the_export_are_those_of_the_run(tmp_path: Path, tokenizer_json: Path) -> None:
    cfg = scaled_down(SIZES["140m"])
    run = Run(tmp_path / "run", tokenizer_json, cfg, [phase_recipe("small", 64, "bos")])
    run.save(0, 30, build(cfg))
    out = export(run.root, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    scorer = Scorer(load_subject(run.root, torch.device("cpu")), 2)
    pairs = [("The sky is", " blue"), ("", "Alone"), ("x = ", "[1, 2]")]
    scores = scorer.log_likelihoods([scorer.split(*pair) for pair in pairs], lambda _: None)
    for (context, continuation), (score, _) in zip(pairs, scores, strict=True):
        ids = tokenizer(context + continuation, return_tensors="pt")["input_ids"]
        count = len(tokenizer(context + continuation)["input_ids"]) - len(tokenizer(context.rstrip())["input_ids"])
        with torch.no_grad():
            found = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[-count:].sum()
        assert found.item() == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize("name", ["125m", "125m-ls", "950m", "pro"])
def test_greedy_text_is_the_argmax_of_our_own_forward(name: str, tmp_path: Path) -> None:
    cfg = scaled_down(SIZES[name])
    model, out = build(cfg), tmp_path / "out"
    export_hf(model.state_dict(), cfg, out)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out)
    # Longer than the sliding window (16), in the prompt and again in what is written.
    ids = ids_for(cfg, length=20)
    written = loaded.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
    with torch.no_grad():
        for _ in range(20):
            ids = torch.cat([ids, model.logits(model(ids)[:, -1]).argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(written, ids)


@pytest.mark.parametrize(
    ("extra", "pad"), [((), "</s>"), (("<|pad|>",), "<|pad|>"), (("<|finetune_right_pad|>",), "<|finetune_right_pad|>")]
)
def test_padding_has_its_own_token_where_there_is_one(
    extra: tuple[str, ...], pad: str, tmp_path: Path, tokenizer_json: Path
) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    tokenizer.add_special_tokens(list(extra))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    cfg, out = scaled_down(SIZES["125m"]), tmp_path / "out"
    export_hf(build(cfg).state_dict(), cfg, out, tokenizer_json=tmp_path / "tokenizer.json", manifest=manifest())
    assert transformers.AutoTokenizer.from_pretrained(out).pad_token == pad
    number = tokenizer.token_to_id(pad)
    assert transformers.GenerationConfig.from_pretrained(out).pad_token_id == number
    # A padding id in config.json would freeze its row of the embedding.
    assert transformers.AutoModelForCausalLM.from_pretrained(out).model.embed_tokens.padding_idx is None
