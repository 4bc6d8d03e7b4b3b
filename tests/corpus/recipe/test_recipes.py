"""The documented recipes: the published numbers, to the digit, and their reference manifests without drift."""

import json
from pathlib import Path

import pytest

from corpus.catalogue.load import find_source
from corpus.recipe.model import load_recipe
from corpus.recipe.published import PublishedManifest, load_published, published_manifest, write_references

ROOT = Path(__file__).parents[3]
RECIPES = {path.stem: load_recipe(path) for path in sorted((ROOT / "recipes").glob("*.yaml"))}
DOCUMENTED = {name: recipe for name, recipe in RECIPES.items() if recipe.family != "sample"}

GOLDEN = {  # tokens, steps, global batch, sequence length, lr, schedule, warm-up steps, final fraction
    "r1_phase1": (2_097_152_000_000, 500_000, 2048, 2048, 4e-3, "linear", 2000, 0.1),
    "r1_phase1_paper": (2_097_152_000_000, 500_000, 2048, 2048, 4e-3, "linear", 2000, 0.1),
    "r1_phase2": (2_097_152_000_000, 500_000, 2048, 2048, 4e-3, "linear", 2000, 0.1),
    "r1_mid1": (104_857_600_000, 50_000, 512, 4096, 3.6e-4, "linear", 500, 0.0),
    "r1_mid2": (104_857_600_000, 50_000, 512, 4096, 3.6e-4, "linear", 500, 0.0),
    "r1_sft_general": (7_096_762_368, 3_384, 512, 4096, 5e-6, "linear", 102, 0.0),
    "r1_sft_reasoning": (807_990_722_560, 24_080, 1024, 32_768, 8e-5, "linear", 2408, 0.0),
    "pro_phase1": (1_342_177_280_000, 640_000, 1024, 2048, 4e-4, "cosine", 10_000, 0.0),
    "mobilellm": (1_006_632_960_000, 480_000, 1024, 2048, 2e-3, "cosine", 1000, 0.1),
}
SUMS = {
    "r1_phase1": 100.02, "r1_phase1_paper": 100.01, "r1_phase2": 99.99, "r1_mid1": 99.99, "r1_mid2": 99.98,
    "pro_phase1": 99.96,
}  # fmt: skip
REPETITION = {  # weight x 2000B / tokens, as computed from the printed tables
    "r1_phase1": dict(
        starcoder=0.84, open_web_math=6.59, fineweb_edu=1.01, wiki=15.8, arxiv=3.85, stackexchange=7.78,
        algebraic_stack=5.21,
    ),
    "r1_phase1_paper": dict(
        starcoder=0.81, open_web_math=11.0, fineweb_edu=0.98, wiki=27.2, arxiv=4.54, stackexchange=5.13,
        algebraic_stack=3.57,
    ),
    "r1_phase2": dict(
        starcoder=0.04, open_web_math=37.0, fineweb_edu=0.84, wiki=0.76, arxiv=0.94, stackexchange=0.88,
        algebraic_stack=2.00, nemotron_science=0.30, nemotron_code=0.90, nemotron_math=4.01, cosmopedia=2.16,
        natural_reasoning=35.3, finemath=4.71, pes2o=0.03,
    ),
}  # fmt: skip


def test_the_documented_recipes_are_all_there():
    assert set(DOCUMENTED) == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_published_hyperparameters(name):
    recipe = RECIPES[name]
    training = recipe.training
    schedule = training.schedule
    assert recipe.name == name
    assert (
        recipe.tokens, recipe.steps, training.global_batch, recipe.seq_len, training.optimizer.lr,
        schedule.kind, schedule.warmup_steps, schedule.final_fraction,
    ) == GOLDEN[name]  # fmt: skip
    assert training.canonical_nodes == 16
    assert training.optimizer.clip_norm == 1.0
    if "sft" not in name:
        assert training.optimizer.betas == (0.9, 0.95) and training.optimizer.weight_decay == 0.1
        assert recipe.cleaning == [] and not recipe.document_mask


@pytest.mark.parametrize("name", SUMS)
def test_printed_columns_sum_as_printed_and_are_normalised(name):
    recipe = RECIPES[name]
    assert recipe.weight_sum() == pytest.approx(SUMS[name], abs=1e-9)
    assert sum(recipe.shares().values()) == pytest.approx(1, abs=1e-12)


def test_the_benchmark_sets_share_their_printed_row_by_rows():
    mixture = RECIPES["r1_mid2"].mixture
    names = ["trivia_qa", "openbookqa", "natural_questions", "piqa", "gsm8k", "boolq", "arc_easy", "arc_challenge"]
    assert sum(mixture[name].weight for name in names) == pytest.approx(0.97, abs=1e-9)
    per_row = [mixture[name].weight / find_source(name, {}).published[0].rows for name in names]
    assert max(per_row) / min(per_row) < 1.001


@pytest.mark.parametrize("name", REPETITION)
def test_repetition_table(name):
    manifest = published_manifest(RECIPES[name])
    for entry, epochs in REPETITION[name].items():
        source = manifest.sources[entry]
        figures = 2 if epochs < 10 else 1
        assert round(source.weight_asked / 100 * 2e12 / source.published_tokens, figures) == epochs, entry


def test_midtraining_repetition():
    for name, stackexchange, math in (("r1_mid1", 1.68, 1.09), ("r1_mid2", 1.59, 2.72)):
        sources = published_manifest(RECIPES[name]).sources
        for entry, epochs in (("stackexchange", stackexchange), ("math", math)):
            ratio = sources[entry].weight_asked / 100 * 1e11 / sources[entry].published_tokens
            assert round(ratio, 2) == epochs


@pytest.mark.parametrize("name", DOCUMENTED)
def test_sources_exist_once_and_choices_are_named(name):
    recipe = RECIPES[name]
    used = [entry.source for entry in recipe.mixture.values()]
    assert len(set(used)) == len(used)
    for source in used:
        find_source(source, recipe.sources)
    assert recipe.provenance["mixture"] and recipe.provenance["tokens"]
    for key, value in recipe.provenance.items():
        assert value.strip(), key
        target = recipe
        for part in key.split("."):
            if isinstance(target, dict):
                assert part in target, key
                target = target[part]
            else:
                assert part in type(target).model_fields, key
                target = getattr(target, part)


def test_open_choices_are_marked_as_ours():
    phase2, mid, v1, pro = (RECIPES[name] for name in ("r1_phase2", "r1_mid1", "mobilellm", "pro_phase1"))
    for recipe, key in (
        (phase2, "training.carry_optimizer"), (phase2, "training.schedule.warmup_steps"),
        (phase2, "training.model.rope_theta"), (mid, "training.schedule.warmup_steps"),
        (mid, "training.distillation.temperature"), (v1, "mixture"), (pro, "seq_len"),
    ):  # fmt: skip
        assert recipe.provenance[key].startswith("ours: "), key
    assert "secondary source" in pro.provenance["mixture"]
    for name in ("mobilellm", "pro_phase1", "r1_sft_general"):
        assert (ROOT / "recipes" / f"{name}.yaml").read_text().startswith("#"), name


def test_distillation_is_on_where_it_was_published():
    for name in ("r1_mid1", "r1_mid2"):
        kd = RECIPES[name].training.distillation
        assert (kd.teacher, kd.direction, kd.temperature, kd.ce_weight, kd.top_k) == (
            "meta-llama/Llama-3.1-8B-Instruct", "forward", 1.0, 0.0, None
        )  # fmt: skip
    assert RECIPES["pro_phase1"].training.distillation.direction == "forward"
    assert RECIPES["r1_phase1"].training.distillation is None


@pytest.mark.parametrize("name", DOCUMENTED)
def test_published_manifests_are_exact(name):
    recipe = RECIPES[name]
    manifest = published_manifest(recipe)
    assert sum(source.samples_drawn for source in manifest.sources.values()) == recipe.samples
    assert sum(source.tokens_drawn for source in manifest.sources.values()) == recipe.tokens
    for source in manifest.sources.values():
        assert abs(source.tokens_drawn - source.weight * recipe.tokens) < recipe.seq_len + 1e-9 * recipe.tokens
        if source.published_tokens:
            assert source.epochs == pytest.approx(source.tokens_drawn / source.published_tokens, abs=1e-4)


def test_the_manifests_folder_has_not_drifted(tmp_path):
    written = write_references([ROOT / "recipes" / f"{name}.yaml" for name in RECIPES], tmp_path)
    assert {path.name for path in written} == {path.name for path in (ROOT / "manifests").glob("*.json")}
    for path in written:
        committed = ROOT / "manifests" / path.name
        assert committed.read_bytes() == path.read_bytes(), "run: python -m corpus.plan --write-references manifests"
        assert isinstance(load_published(committed), PublishedManifest)
        assert json.loads(committed.read_bytes())["kind"] == "published"
