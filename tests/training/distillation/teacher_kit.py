"""What the tests of distillation share: a build, teachers, and the commands that use both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
)

from corpus.recipe.model import load_recipe
from corpus.recipe.training import Distillation
from corpus.records.manifest import load_manifest
from tests.training.trainer_kit import VOCAB, Ranks, build, metrics
from training import teacher as teacher_command
from training.data.samples import StreamSamples
from training.distillation.cache import TeacherRecord, find_caches

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
        recipe = load_recipe(self.recipe)
        settings = Distillation(teacher=str(self.teacher), top_k=top_k, cache=True)
        training = recipe.training.model_copy(update={"distillation": settings})
        recipe = recipe.model_copy(update={"training": training})
        return find_caches(recipe, load_manifest(self.data / "mix"), self.data / "mix", "mix.yaml")

    def caches(self, name: str) -> list[Path]:
        return sorted((self.data / "streams" / name).glob("teacher-*"))


def stored_rows(bench: Bench) -> torch.Tensor:
    """All samples, (60, SEQ_LEN + 1), in the loader's numbering."""
    streams = [StreamSamples(bench.data / "streams" / name) for name in ("a-40", "b-20")]
    shards = [stream.read(shard) for stream in streams for shard in range(len(stream.shard_samples))]
    return torch.from_numpy(np.concatenate(shards).astype(np.int64))
