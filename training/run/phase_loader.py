"""The loader of a phase, over the streams of its build: on this machine, or from a store, through a cache."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from corpus.records.manifest import ManifestSource
from corpus.streams.store import StorePath
from training.data.loader import MixtureLoader, MixtureSource, build_loader
from training.distillation.cache import WithTeacher
from training.run.cache import cache_folder
from training.run.options import Options
from training.run.phase_teacher import cache_reader
from training.run.phases import Phase


def _source(name: str, source: ManifestSource, build: Path, cache: Path) -> MixtureSource:
    """A stream of the build, its shards unpacked into the cache: built data is never written to."""
    stream = build / source.stream
    # The library reads another variable than the rest of boto3.
    if isinstance(stream, StorePath) and (
        endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    ):
        os.environ.setdefault("S3_ENDPOINT_URL", endpoint)
    # Keyed by what the shards hold: a stream built anew is another, and runs and data folders share one.
    local = cache / source.stream_fingerprint
    return MixtureSource(name, local, str(stream), source.weight_asked)


def phase_loader(options: Options, phase: Phase) -> MixtureLoader:
    """Batches of the phase for this rank; call on all ranks together. Raises UserError as `build_loader` does."""
    recipe, manifest = phase.recipe, phase.manifest
    cache, teacher = cache_folder(options), recipe.training.distillation
    loader = build_loader(
        [_source(name, source, phase.build, cache) for name, source in manifest.sources.items()],
        seq_len=recipe.seq_len,
        seed=recipe.seed,
        global_batch=recipe.training.global_batch,
        canonical_nodes=recipe.training.canonical_nodes,
        total_steps=phase.steps,
        virtual_epoch_samples=recipe.training.virtual_epoch_samples,
        num_workers=options.workers,
        manifest=manifest.fingerprint,
        bos_id=manifest.tokenizer.bos_id if recipe.boundary in ("bos", "both") else None,
        eos_id=manifest.tokenizer.eos_id if recipe.boundary in ("eos", "both") else None,
        document_mask=recipe.document_mask,
        teacher_k=(teacher.top_k or 0) if teacher and teacher.cache else 0,
        cache_limit=options.cache_limit,
        allow_changed_data=options.allow_changed_data,
    )
    if reader := cache_reader(phase):
        loader.collate_fn = WithTeacher(loader.collate_fn, reader)
    if options.workers:
        loader.worker_init_fn = _Unstoppable(loader.worker_init_fn)
    return loader


class _Unstoppable:
    """Starts a data worker that ignores stop signals: schedulers send them to all, and the last step needs data."""

    def __init__(self, inner: Callable[[int], None] | None) -> None:
        self.inner = inner

    def __call__(self, worker: int) -> None:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        if self.inner:
            self.inner(worker)
