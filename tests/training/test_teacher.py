"""Teachers: running beside the student, written to disk and read back, and refused where they do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from corpus.base.errors import UserError
from corpus.recipe.training import Distillation
from corpus.records.manifest import load_manifest
from tests.training.trainer_kit import SEQ_LEN, VOCAB, Ranks, build, metrics, trajectory
from training import teacher as teacher_command
from training.data.samples import StreamSamples
from training.distillation.cache import CachedTeacher, TeacherRecord, find_caches
from training.distillation.loss import Distiller, Objective
from training.distillation.teacher import OnlineTeacher
from training.hf.config import hf_config
from training.model.decoder import MobileLM
from training.model.shapes import SIZES, scaled_down
from training.run.composer_model import TrainingModel
from training.train import main as train

CPU = torch.device("cpu")
SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "initializer_range": 0.2,
}  # fmt: skip


def make_teacher(folder: Path, seed: int = 0, **changes: Any) -> Path:
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**{"vocab_size": VOCAB, **SHAPE, **changes})).save_pretrained(folder)
    return folder


def word_tokenizer(path: Path, words: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words.split())}, unk_token="?"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return path


class Bench:
    """A build, a teacher, and the command that trains on the one from the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = build(folder, steps=8, samples=(40, 20))
        self.data = folder / "data"
        self.teacher = make_teacher(folder / "tiny-llama")

    def arguments(self, name: str, *more: str, **distillation: Any) -> list[str]:
        settings = json.dumps({"teacher": str(self.teacher), **distillation})
        return [
            "--size", "tiny", "--recipe", str(self.recipe), "--data", str(self.data), "--workers", "0",
            "--out", str(self.folder / "runs"), "--run-name", name, "--set", f"distillation={settings}", *more,
        ]  # fmt: skip

    def start(self, name: str, *more: str, processes: int = 1, **distillation: Any) -> Ranks:
        return Ranks(self.arguments(name, *more, **distillation), processes, self.folder / f"log-{name}")

    def finish(self, name: str, *more: str, processes: int = 1, **distillation: Any) -> list[dict[str, Any]]:
        ranks = self.start(name, *more, processes=processes, **distillation)
        assert ranks.wait() == 0, ranks.output()
        return metrics(self.run(name))

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name

    def write(self, top_k: int, *more: str) -> None:
        teacher_command.main(
            [str(self.recipe), "--teacher", str(self.teacher), "--data", str(self.data), "--top-k", str(top_k), *more]
        )

    def found(self, top_k: int) -> list[tuple[Path, TeacherRecord]]:
        settings = Distillation(teacher=str(self.teacher), top_k=top_k, cache=True)
        return find_caches(settings, load_manifest(self.data / "mix"), self.data / "mix", False, "mix.yaml")

    def caches(self, name: str) -> list[Path]:
        return sorted((self.data / "streams" / name).glob("teacher-*"))


def stored_rows(bench: Bench) -> torch.Tensor:
    """All samples, (60, SEQ_LEN + 1), in the loader's numbering."""
    streams = [StreamSamples(bench.data / "streams" / name) for name in ("a-40", "b-20")]
    shards = [stream.read(shard) for stream in streams for shard in range(len(stream.shard_samples))]
    return torch.from_numpy(np.concatenate(shards).astype(np.int64))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("teacher"))


def test_logits_are_the_models_own_whatever_chunk(tmp_path: Path) -> None:
    torch.manual_seed(1)
    # The second class divides its logits by a number, which a bare product with the head would miss.
    scaled = GraniteForCausalLM(GraniteConfig(vocab_size=VOCAB, **SHAPE, logits_scaling=4.0))
    scaled.save_pretrained(tmp_path / "scaled")
    # The third names no base model.
    shape = hf_config(scaled_down(SIZES["950m"]))
    Llama4ForCausalLM(Llama4TextConfig(**shape)).save_pretrained(tmp_path / "llama4")
    for folder, by_chunk in (
        (make_teacher(tmp_path / "plain"), True),
        (tmp_path / "scaled", False),
        (tmp_path / "llama4", True),
    ):
        teacher = OnlineTeacher(str(folder), vocab_size=VOCAB, device=CPU)
        assert (teacher.logits_of(torch.zeros(1, 4, dtype=torch.int64)).head is not None) == by_chunk
        ids = torch.randint(VOCAB, (3, 16))
        logits_of = teacher.logits_of(ids)
        with torch.no_grad():
            expected = teacher.model(ids).logits.flatten(0, 1)
        for part in (slice(0, 48), slice(5, 20)):
            torch.testing.assert_close(logits_of(part), expected[part])
        assert not logits_of(slice(0, 1)).requires_grad


def test_with_a_document_mask_each_document_is_read_alone(bench: Bench) -> None:
    teacher = OnlineTeacher(str(bench.teacher), vocab_size=VOCAB, device=CPU)
    ids = torch.randint(VOCAB, (1, 16))
    doc_ids = torch.tensor([[0] * 7 + [1] * 9])
    both = teacher({"input_ids": ids, "doc_ids": doc_ids})(slice(0, 16))
    for part in (slice(0, 7), slice(7, 16)):
        # Rotary positions are relative, so it does not matter that the second document starts at 7.
        alone = teacher({"input_ids": ids[:, part]})(slice(0, 16))
        torch.testing.assert_close(both[part], alone, atol=1e-4, rtol=1e-4)


def test_cached_and_online_give_the_same_loss_and_gradients(bench: Bench) -> None:
    bench.write(VOCAB)
    ids = stored_rows(bench)[[3, 58, 41]]
    batch = {
        "input_ids": ids[:, :-1], "labels": ids[:, 1:], "sample_ids": torch.tensor([3, 58, 41]),
        "source_ids": torch.tensor([0, 1, 1]),
    }  # fmt: skip
    online = OnlineTeacher(str(bench.teacher), vocab_size=VOCAB, device=CPU)
    cached = CachedTeacher(bench.found(VOCAB))
    results = []
    for teacher in (online, cached):
        torch.manual_seed(0)
        cfg = scaled_down(SIZES["350m"])
        model = TrainingModel(cfg, ("a", "b"), Distiller(teacher, Objective(ce_weight=0.2, top_k=VOCAB)))
        assert len(list(model.parameters())) == len(list(MobileLM(cfg).parameters()))
        loss = model(batch)
        loss.backward()
        sums = model.take_sums()
        assert sums
        torch.testing.assert_close(0.2 * sums.loss.sum() / 3 + 0.8 * sums.kd.sum() / 3, loss.detach().double())
        results.append((loss.detach(), model.model.embed_tokens.weight.grad))
    torch.testing.assert_close(results[0][0], results[1][0], atol=0, rtol=1e-3)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-3, rtol=1e-2)


def test_runs_that_distil_from_disk_resume_exactly_and_match_a_sharded_online_teacher(bench: Bench) -> None:
    bench.write(6)
    settings = {"top_k": 6, "cache": True, "ce_weight": 0.25, "direction": "reverse"}
    more = ["--save-interval", "3"]
    rows = bench.finish("whole", *more, **settings)
    for row in rows:
        assert 0.25 * row["ce"] + 0.75 * row["kd"] == pytest.approx(row["loss"], rel=1e-5)
    cut = bench.start("cut", *more, **settings)
    cut.wait_for(lambda: len(metrics(bench.run("cut"))) >= 4)
    cut.kill()
    cut.wait()
    bench.finish("cut", *more, **settings)
    assert trajectory(bench.run("cut")) == trajectory(bench.run("whole"))
    assert [(row["kd"], row["ce"]) for row in metrics(bench.run("cut"))] == [(row["kd"], row["ce"]) for row in rows]
    online = {key: value for key, value in settings.items() if key != "cache"}
    two = bench.finish("two", "--until", "3", "--parallel", "fsdp2", processes=2, **online)
    assert [row["samples"] for row in two] == [row["samples"] for row in rows[:3]]
    for key in ("loss", "kd", "ce"):
        assert [row[key] for row in two] == pytest.approx([row[key] for row in rows[:3]], rel=2e-3)


def test_rows_belong_to_their_samples(bench: Bench) -> None:
    bench.write(6)
    teacher = OnlineTeacher(str(bench.teacher), vocab_size=VOCAB, device=CPU)
    picks = [59, 0, 41, 39, 17]
    ids = stored_rows(bench)[picks][:, :-1]
    top = CachedTeacher(bench.found(6))({"input_ids": ids, "sample_ids": torch.tensor(picks)})
    log_probs = torch.log_softmax(teacher.logits_of(ids)(slice(0, 5 * SEQ_LEN)), -1)
    torch.testing.assert_close(top.log_probs[:, :-1], log_probs.topk(6).values, atol=5e-3, rtol=2e-3)
    torch.testing.assert_close(top.log_probs[:, :-1], log_probs.gather(1, top.ids), atol=5e-3, rtol=2e-3)
    torch.testing.assert_close(top.log_probs.exp().sum(1), torch.ones(5 * SEQ_LEN))


def test_writing_goes_on_where_it_was_stopped(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.write(5)
    folder = next(f for f in bench.caches("a-40") if json.loads((f / "teacher.json").read_text())["k"] == 5)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    # As a kill between a shard's two files leaves it.
    (folder / "teacher.json").unlink()
    (folder / "000001.log_probs.npy").unlink()
    capsys.readouterr()
    bench.write(5)
    assert "1 shards to write" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    rewritten = {name for name, time in times.items() if (folder / name).stat().st_mtime_ns != time}
    assert rewritten == {"000001.ids.npy", "000001.log_probs.npy", "teacher.json"}


def test_processes_share_the_shards_out(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        # One after the other here; the second finds what the first has left.
        bench.write(4)
    text = capsys.readouterr().out
    assert "shards left to other processes" in text and text.count("complete") < 4
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    bench.write(4)
    assert capsys.readouterr().out.count("complete") == 2


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        train(arguments)
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


def test_a_teacher_that_does_not_fit_is_refused_before_the_run_starts(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = make_teacher(tmp_path / "wide", vocab_size=VOCAB + 8)
    assert "has 520 ids, the student has 512" in refused(capsys, bench.arguments("x", teacher=str(wide)))
    other = make_teacher(tmp_path / "other")
    ours = word_tokenizer(bench.data / "tokenizers" / "t" / "tokenizer.json", "? The quick brown fox")
    word_tokenizer(other / "tokenizer.json", "? The quick red fox brown")
    text = refused(capsys, bench.arguments("x", teacher=str(other)))
    assert "encodes text differently: first at 'brown' and 'brown'" in text
    word_tokenizer(other / "tokenizer.json", "? The quick brown fox")
    OnlineTeacher(str(other), vocab_size=VOCAB, device=CPU, tokenizer=ours)
    ours.unlink()
    assert "holds no config.json" in refused(capsys, bench.arguments("x", teacher=str(tmp_path)))
    assert "cache needs top_k" in refused(capsys, bench.arguments("x", cache=True))
    assert not bench.run("x").exists()


def test_a_cache_that_does_not_fit_is_refused(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.write(6)
    text = refused(capsys, bench.arguments("x", top_k=7, cache=True))
    assert (
        "k 6 instead of 7" in text
        and f"python -m training.teacher {bench.recipe} --teacher {bench.teacher} --top-k 7" in text
    )
    assert "temperature 1.0 instead of 2.0" in refused(
        capsys, bench.arguments("x", top_k=6, temperature=2.0, cache=True)
    )
    assert "document_mask False instead of True" in refused(
        capsys, bench.arguments("x", "--set", "document_mask=true", top_k=6, cache=True)
    )
    assert "teacher tiny-llama instead of another" in refused(
        capsys, bench.arguments("x", top_k=6, cache=True, teacher="another")
    )
    # The same name, other weights.
    changed = make_teacher(tmp_path / "tiny-llama", seed=5)
    assert "other weights of the teacher" in refused(
        capsys, bench.arguments("x", top_k=6, cache=True, teacher=str(changed))
    )
    # Another stream in the same place.
    copy = tmp_path / "copy"
    shutil.copytree(bench.folder, copy, ignore=shutil.ignore_patterns("runs"))
    manifest = load_manifest(copy / "data" / "mix")
    source = manifest.sources["a"].model_copy(update={"stream_fingerprint": "f" * 64})
    manifest.model_copy(update={"sources": {**manifest.sources, "a": source}}).write(copy / "data" / "mix")
    arguments = bench.arguments("x", top_k=6, cache=True)
    arguments[arguments.index("--data") + 1] = str(copy / "data")
    assert "stream_fingerprint" in refused(capsys, arguments)


def test_the_recipe_names_the_teacher(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load(bench.recipe.read_text())
    recipe["training"]["distillation"] = {"teacher": str(bench.teacher), "top_k": 6}
    named = bench.folder / "recipes" / "named.yaml"
    named.write_text(yaml.safe_dump(recipe))
    teacher_command.main([str(named), "--data", str(bench.data)])
    assert capsys.readouterr().out.count("complete") == 2
    with pytest.raises(UserError, match="--teacher: the recipe does not say it"):
        teacher_command.main([str(bench.recipe), "--data", str(bench.data)])
    arguments = ["--size", "tiny", "--recipe", str(named), "--data", str(bench.data), "--out", str(bench.folder / "r")]
    text = refused(capsys, [*arguments, "--set", "distillation.teacher=nowhere", "--set", "distillation.cache=true"])
    assert "teacher tiny-llama instead of nowhere" in text
