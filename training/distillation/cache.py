"""A teacher's top k on disk, beside the stream it was computed on, and read back by sample number.

    STREAM/teacher-<key12>/teacher.json                  what it belongs to
    STREAM/teacher-<key12>/NNNNNN-BEGIN-END.ids.npy      (END - BEGIN, seq_len, k) uint16 or uint32: the most likely
                                                         tokens for samples BEGIN to END of shard NNNNNN
    STREAM/teacher-<key12>/NNNNNN-BEGIN-END.log_probs.npy    (..., k + 1) float16: theirs, and of all other tokens

A phase draws the front of every shard (data/mixture.py), so only that is written; a longer phase adds what lies behind
it. A sample's number fixes its shard and row, so shuffling, resuming and the number of processes change nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import NDArray

from corpus.base.config import Strict, parse
from corpus.base.errors import UserError
from corpus.base.files import atomic_write, fingerprint, read_json, write_json
from corpus.recipe.model import Recipe
from corpus.records.manifest import Manifest
from training.data.mixture import Cycle, drawn_front, plan_epochs
from training.data.samples import StreamSamples
from training.distillation.identity import TeacherIdentity, identify, short_name

if TYPE_CHECKING:
    from torch import Tensor

    from training.distillation.loss import TopK

TEACHER_FILE = "teacher.json"
TEACHER_IDS, TEACHER_SCORES = "teacher_ids", "teacher_log_probs"
"""Keys that `WithTeacher` adds to a batch: (B, seq_len, k) int32 and (B, seq_len, k + 1) float16."""

OPEN_FILES = 256
"""Memory-mapped files kept open per process."""

_NAME = re.compile(r"(\d{6})-(\d+)-(\d+)\.log_probs\.npy")


class TeacherRecord(Strict):
    """`teacher.json`."""

    kind: Literal["teacher"] = "teacher"
    format: int = 2
    """1 had whole shards, 2 has the samples of them that a phase draws."""
    stream_fingerprint: str
    teacher: TeacherIdentity
    k: int
    temperature: float
    """Of the softmax that the log-probabilities come from."""
    document_mask: bool
    """Whether the teacher's attention stayed inside documents."""
    vocab_size: int
    seq_len: int
    shards: list[int]
    """Samples of each shard, in the stream's order."""

    @property
    def key(self) -> str:
        """Fingerprint of all of it."""
        return fingerprint(self.model_dump(mode="json"))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored ids."""
        return np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)

    def folder(self, stream: Path) -> Path:
        """Where it lies beside the shards of `stream`."""
        return stream / f"teacher-{self.key[:12]}"

    def bytes_of(self, samples: int) -> int:
        """Bytes on disk of that many samples."""
        return samples * self.seq_len * (self.k * self.dtype.itemsize + (self.k + 1) * 2)


class Run(NamedTuple):
    """Consecutive samples of one shard."""

    shard: int
    begin: int
    end: int


def _files(folder: Path, run: Run) -> tuple[Path, Path]:
    # The scores are published last, so that their name stands for both.
    name = f"{run.shard:06d}-{run.begin}-{run.end}"
    return folder / f"{name}.ids.npy", folder / f"{name}.log_probs.npy"


def stored_runs(folder: Path) -> dict[int, list[Run]]:
    """What is written, by shard, each shard's runs in order."""
    found: dict[int, list[Run]] = {}
    if folder.is_dir():
        for entry in os.scandir(folder):
            if match := _NAME.fullmatch(entry.name):
                run = Run(int(match[1]), int(match[2]), int(match[3]))
                found.setdefault(run.shard, []).append(run)
    return {shard: sorted(runs) for shard, runs in found.items()}


def reach(runs: Sequence[Run]) -> int:
    """How many samples from the front on are written without a gap."""
    end = 0
    for run in runs:
        if run.begin <= end:
            end = max(end, run.end)
    return end


def fronts(recipe: Recipe, manifest: Manifest, shards: Mapping[str, Sequence[int]]) -> dict[str, NDArray[np.int64]]:
    """By mixture entry: how many samples at the front of each shard the phase draws, shape (shards,)."""
    training = recipe.training
    weights = [source.weight_asked for source in manifest.sources.values()]
    plan = plan_epochs(weights, recipe.steps, training.global_batch, training.virtual_epoch_samples)
    return {
        name: drawn_front(plan, place, Cycle(name, shards[name], recipe.seed))
        for place, name in enumerate(manifest.sources)
    }


def missing_runs(record: TeacherRecord, stream: Path, front: NDArray[np.int64]) -> list[Run]:
    """What a phase that draws `front` still lacks, one run a shard at the most."""
    stored = stored_runs(record.folder(stream))
    have = [reach(stored.get(shard, ())) for shard in range(len(record.shards))]
    return [
        Run(shard, begin, int(end)) for shard, (begin, end) in enumerate(zip(have, front, strict=True)) if begin < end
    ]


@contextlib.contextmanager
def run_writer(record: TeacherRecord, stream: Path, run: Run) -> Iterator[Callable[[TopK], None]]:
    """A function that appends the top k of consecutive tokens; the run's files appear when the block ends well."""
    lowest = float(np.finfo(np.float16).min)
    ids_path, scores_path = _files(record.folder(stream), run)
    with atomic_write(scores_path) as scores, atomic_write(ids_path) as ids:
        for file, dtype, last in ((ids, record.dtype, record.k), (scores, np.dtype(np.float16), record.k + 1)):
            shape = (run.end - run.begin, record.seq_len, last)
            header = {"descr": dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            write_array_header_1_0(file, header)

        def append(top: TopK) -> None:
            ids.write(top.ids.cpu().numpy().astype(record.dtype).tobytes())
            scores.write(top.log_probs.clamp(min=lowest).half().cpu().numpy().tobytes())

        yield append


def write_record(record: TeacherRecord, stream: Path) -> None:
    """Say what the folder belongs to; what of it is there, the names of its files say."""
    write_json(record.folder(stream) / TEACHER_FILE, record.model_dump(mode="json"))


def find_caches(recipe: Recipe, manifest: Manifest, build: Path, file: str) -> list[tuple[Path, TeacherRecord]]:
    """The cache of every source of a build, in the manifest's order; hashes the teacher where it is a local folder.

    `recipe` is the phase's, with its overrides; `file` is the path of its file.

    Raises UserError, naming the command that writes them, where one is absent, does not fit the stream, the teacher or
    the settings, comes from other weights than the others, or lacks samples that the phase draws.
    """
    settings = recipe.training.distillation
    assert settings is not None
    command = f"Run: python -m training.teacher {file} --teacher {settings.teacher} --top-k {settings.top_k}"
    local = Path(settings.teacher)
    # Hashing the weights takes a while: once, and by the first process alone, whose error ends the others.
    known = (local / "config.json").is_file() and os.environ.get("RANK", "0") == "0"
    identity = identify(settings.teacher, local) if known else None
    found: list[tuple[Path, TeacherRecord]] = []
    shards = {name: StreamSamples(build / source.stream).shard_samples for name, source in manifest.sources.items()}
    drawn = fronts(recipe, manifest, shards)
    for name, source in manifest.sources.items():
        stream = build / source.stream
        records = [(path.parent, _read(path)) for path in sorted(stream.glob(f"teacher-*/{TEACHER_FILE}"))]
        wanted: dict[str, Any] = {
            "format": TeacherRecord.model_fields["format"].default, "stream_fingerprint": source.stream_fingerprint,
            "k": settings.top_k, "temperature": settings.temperature, "document_mask": recipe.document_mask,
            "vocab_size": manifest.tokenizer.vocab_size, "seq_len": manifest.seq_len,
        }  # fmt: skip
        fitting, problems = [], []
        for folder, record in records:
            wrong = [
                f"{key} {getattr(record, key)} instead of {value}"
                for key, value in wanted.items()
                if getattr(record, key) != value
            ]
            if record.teacher.name != short_name(settings.teacher):
                wrong.append(f"teacher {record.teacher.name} instead of {short_name(settings.teacher)}")
            elif identity and record.teacher != identity:
                wrong.append("other weights of the teacher")
            if not wrong and (lacks := missing_runs(record, stream, drawn[name])):
                samples = sum(run.end - run.begin for run in lacks)
                wrong.append(f"{samples:,} of the {int(drawn[name].sum()):,} samples that the phase draws missing")
            if wrong:
                problems.append(f"{folder.name} has {', '.join(wrong)}")
            else:
                fitting.append((folder, record))
        if not fitting:
            what = "; ".join(problems) or "there is none"
            raise UserError(f"no teacher cache of '{name}' fits: {what}", where=str(stream), fix=command)
        if len({record.teacher.weights_sha256 for _, record in [*found[:1], *fitting]}) > 1:
            raise UserError(
                f"the teacher caches of '{name}' come from different weights of {settings.teacher}", where=str(stream),
                fix="Remove those that are not meant, or name the teacher by its local folder.",
            )  # fmt: skip
        found.append(fitting[0])
    return found


def _read(path: Path) -> TeacherRecord:
    return parse(TeacherRecord, read_json(path), str(path))


class CacheReader:
    """Looks up what the teacher says of samples, by their numbers; picklable, each process opens files of its own."""

    def __init__(self, caches: Sequence[tuple[Path, TeacherRecord]]) -> None:
        """`caches` as from :func:`find_caches`: one per source, in the loader's order."""
        self._caches = list(caches)
        # Samples are numbered through all streams in order, and through each one's shards in order.
        sizes = [np.asarray(record.shards, np.int64) for _, record in caches]
        self._first_shards = np.cumsum([0, *(len(each) for each in sizes)])
        self._ends = np.cumsum(np.concatenate(sizes))
        self._stored: list[dict[int, list[Run]]] | None = None
        self._open: Callable[[int, Run], tuple[NDArray[Any], NDArray[Any]]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stored": None, "_open": None}

    def _map(self, source: int, run: Run) -> tuple[NDArray[Any], NDArray[Any]]:
        folder, record = self._caches[source]
        arrays = []
        for path, last in zip(_files(folder, run), (record.k, record.k + 1), strict=True):
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise UserError(f"cannot be read: {error}", where=str(path), fix="Delete it and write it again "
                                "with python -m training.teacher.") from None  # fmt: skip
            if array.shape != (run.end - run.begin, record.seq_len, last):
                raise UserError(f"has shape {array.shape}, not what its name and {TEACHER_FILE} say", where=str(path))
            arrays.append(array)
        return arrays[0], arrays[1]

    def rows(self, sample_ids: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The stored ids (B, seq_len, k) and log-probabilities (B, seq_len, k + 1) of B samples."""
        if self._stored is None or self._open is None:
            self._stored = [stored_runs(folder) for folder, _ in self._caches]
            self._open = functools.lru_cache(OPEN_FILES)(self._map)
        picked = []
        for sample in sample_ids:
            place = int(np.searchsorted(self._ends, sample, side="right"))
            source = int(np.searchsorted(self._first_shards, place, side="right")) - 1
            shard = place - int(self._first_shards[source])
            row = sample - (int(self._ends[place - 1]) if place else 0)
            run = next((run for run in self._stored[source].get(shard, ()) if run.begin <= row < run.end), None)
            if run is None:
                folder = self._caches[source][0]
                raise UserError(f"sample {row} of shard {shard} is missing", where=str(folder),
                                fix="Write it with python -m training.teacher.")  # fmt: skip
            ids, log_probs = self._open(source, run)
            picked.append((ids[row - run.begin], log_probs[row - run.begin]))
        return np.stack([ids for ids, _ in picked]), np.stack([log_probs for _, log_probs in picked])


class WithTeacher:
    """A collate function that adds what the teacher says: the data workers read it, not the training step."""

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]], reader: CacheReader) -> None:
        self.collate, self.reader = collate, reader

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The batch with TEACHER_IDS and TEACHER_SCORES."""
        import torch

        ids, log_probs = self.reader.rows([sample["sample_id"] for sample in samples])
        teacher = {TEACHER_IDS: torch.from_numpy(ids.astype(np.int32)), TEACHER_SCORES: torch.from_numpy(log_probs)}
        return {**self.collate(samples), **teacher}


def cached_teacher(batch: Mapping[str, Tensor]) -> TopK:
    """The top k of every token of a batch that `WithTeacher` made, flattened to (B * seq_len, ...)."""
    import torch

    from training.distillation.loss import FLOOR, TopK

    scores = batch[TEACHER_SCORES].flatten(0, 1).float()
    # Float16 moves the sum of the probabilities by up to a thousandth, and the gradient counts on 1.
    scores = torch.log_softmax(scores, dim=-1).clamp_(min=FLOOR)
    return TopK(batch[TEACHER_IDS].flatten(0, 1).long(), scores)
