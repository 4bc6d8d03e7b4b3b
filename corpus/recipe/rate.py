"""How fast this machine tokenises: what the hours of an estimate rest on."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from pathlib import Path


def measured_rate() -> tuple[float, str]:
    """MB/s at which this machine tokenises, all cores, and how that was measured (a few seconds)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from corpus.acquire.embedded import records
    from corpus.tokenization.check import choose_engine, load_engine

    texts, size = [], 0
    for record in records("stdlib_code"):
        texts.append(record["text"])
        size += len(record["text"].encode())
        if size > 8_000_000:
            break
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=4096, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator(itertools.islice(texts, 60), trainer)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        model.save(str(path))
        name = choose_engine(path, None).engine
        engine = load_engine(path, name)
        engine.encode_batch(texts[:20])
        started = time.perf_counter()
        for first in range(0, len(texts), 64):
            engine.encode_batch(texts[first : first + 64])
        seconds = time.perf_counter() - started
    cores = os.cpu_count() or 1
    return size / seconds / 1e6 * cores, f"measured with {name} and a small tokenizer on one core, times {cores} cores"
