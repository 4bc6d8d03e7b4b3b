"""A build of random ids that the real trainer takes for a user's: recipe, streams, manifest, and a teacher's cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from corpus.base.files import fingerprint
from corpus.recipe.model import load_recipe
from corpus.records.manifest import Manifest, ManifestSource
from corpus.records.stream import STREAM_FILE, Documents, Tokenizer
from corpus.streams.mds import SHARD_BYTES, ShardWriter

SHARES = {"a": 0.7, "b": 0.3}
SAMPLES = 128
"""Of each source; longer phases read them again."""
TOP_K = 64
TEACHER = "synthetic/teacher"


def write_build(
    folder: Path, *, vocab_size: int, seq_len: int, global_batch: int, steps: int, distill: bool = False
) -> Path:
    """Write a built recipe of two sources below `folder` (its data folder is `folder/data`); returns the recipe's file.

    With `distill`, each stream has the top `TOP_K` of a made-up teacher beside it and the recipe asks for it.
    """
    training = {
        "global_batch": global_batch,
        "optimizer": {"lr": 1e-4},
        "schedule": {"kind": "constant", "warmup_steps": 0, "final_fraction": 1.0},
    }
    if distill:
        training["distillation"] = {"teacher": TEACHER, "top_k": TOP_K, "cache": True}
    path = folder / "bench.yaml"
    recipe = {
        "name": "bench",
        "family": "bench",
        "phase": "bench",
        "summary": "Random ids, for measuring.",
        "tokenizer": {"kind": "train", "vocab_size": vocab_size},
        "seq_len": seq_len,
        "boundary": "bos",
        "tokens": steps * global_batch * seq_len,
        "mixture": {name: {"source": name, "weight": weight} for name, weight in SHARES.items()},
        "training": training,
    }
    path.write_text(yaml.safe_dump(recipe))
    loaded = load_recipe(path)
    sources = {}
    for seed, (name, share) in enumerate(SHARES.items()):
        stream = folder / "data" / "streams" / name
        write_ids(stream, SAMPLES, seq_len, vocab_size, seed)
        (stream / STREAM_FILE).write_text("{}")
        drawn = round(loaded.samples * share)
        sources[name] = ManifestSource(
            source=name, stream=f"../streams/{name}", revision="1",
            stream_fingerprint=fingerprint([seed, SAMPLES, seq_len, vocab_size]),
            licence="CC0-1.0", redistributable=True, documents=Documents(read=SAMPLES, kept=SAMPLES),
            tokens=SAMPLES * (seq_len + 1), samples=SAMPLES, text_bytes=0, weight_asked=share, weight=share,
            samples_drawn=drawn, tokens_drawn=drawn * seq_len, epochs=drawn / SAMPLES,
        )  # fmt: skip
    manifest = Manifest(
        recipe=loaded.name, family=loaded.family, phase=loaded.phase, recipe_sha256="0" * 64, seq_len=seq_len,
        boundary=loaded.boundary, document_mask=loaded.document_mask,
        tokenizer=Tokenizer(name="none", sha256="0" * 64, vocab_size=vocab_size, bos_id=0, eos_id=1, path="none"),
        tokens=loaded.tokens, steps=loaded.steps, global_batch=global_batch, seed=loaded.seed,
        weight_sum=loaded.weight_sum(), sources=sources,
    )  # fmt: skip
    manifest.write(folder / "data" / loaded.name)
    if distill:
        _write_teacher(folder / "data" / loaded.name, manifest)
    return path


def write_ids(
    folder: Path, samples: int, seq_len: int, vocab_size: int, seed: int, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write shards of random ids, none of them special, into a new folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
    with ShardWriter(folder, seq_len, dtype, shard_bytes) as writer:
        for _ in range(samples):
            writer.write(rng.integers(2, vocab_size, (1, seq_len + 1)).astype(dtype))


def _write_teacher(build: Path, manifest: Manifest) -> None:
    import torch

    from training.data.samples import StreamSamples
    from training.distillation.cache import Run, TeacherRecord, run_writer, write_record
    from training.distillation.identity import TeacherIdentity
    from training.distillation.loss import TopK

    identity = TeacherIdentity(name=TEACHER, config_sha256="0" * 64, weights_sha256="0" * 64)
    generator = torch.Generator().manual_seed(0)
    vocab_size, seq_len = manifest.tokenizer.vocab_size, manifest.seq_len
    # Any distinct ids will do: a start of its own for each position.
    steps = torch.arange(TOP_K) * (vocab_size // TOP_K)
    for source in manifest.sources.values():
        stream = build / source.stream
        record = TeacherRecord(
            stream_fingerprint=source.stream_fingerprint, teacher=identity, k=TOP_K, temperature=1.0,
            document_mask=False, vocab_size=vocab_size, seq_len=seq_len, shards=StreamSamples(stream).shard_samples,
        )  # fmt: skip
        for shard, samples in enumerate(record.shards):
            with run_writer(record, stream, Run(shard, 0, samples)) as append:
                for _ in range(samples):
                    start = torch.randint(vocab_size, (seq_len, 1), generator=generator)
                    scores = torch.randn(seq_len, TOP_K + 1, generator=generator).log_softmax(-1)
                    append(TopK((start + steps) % vocab_size, scores))
        write_record(record, stream)
