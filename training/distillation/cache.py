"""A teacher's top k on disk, beside the stream it was computed on, and read back by sample number.

    STREAM/teacher-<key12>/NNNNNN.ids.npy        (samples, seq_len, k) uint16 or uint32: the shard's most likely tokens
    STREAM/teacher-<key12>/NNNNNN.log_probs.npy  (samples, seq_len, k + 1) float16: theirs, and of all other tokens
    STREAM/teacher-<key12>/teacher.json          what it belongs to; written last, when every shard is there

A sample's number fixes its shard and row, so shuffling, resuming and the number of processes change nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import NDArray

from corpus.base.config import Strict, parse
from corpus.base.errors import UserError
from corpus.base.files import atomic_write, fingerprint, read_json, write_json
from corpus.recipe.training import Distillation
from corpus.records.manifest import Manifest
from training.distillation.identity import TeacherIdentity, identify, short_name

if TYPE_CHECKING:
    from torch import Tensor

    from training.distillation.loss import TopK

TEACHER_FILE = "teacher.json"

OPEN_SHARDS = 256
"""Memory-mapped shards kept open per process."""


class TeacherRecord(Strict):
    """`teacher.json`."""

    kind: Literal["teacher"] = "teacher"
    format: int = 1
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


def _files(folder: Path, shard: int) -> tuple[Path, Path]:
    return folder / f"{shard:06d}.ids.npy", folder / f"{shard:06d}.log_probs.npy"


def missing_shards(record: TeacherRecord, stream: Path) -> list[int]:
    """Shards that are not written yet."""
    folder = record.folder(stream)
    return [shard for shard in range(len(record.shards)) if not all(f.is_file() for f in _files(folder, shard))]


@contextlib.contextmanager
def shard_writer(record: TeacherRecord, stream: Path, shard: int) -> Iterator[Callable[[TopK], None]]:
    """A function that appends the top k of consecutive tokens; the shard's files appear when the block ends well."""
    lowest = float(np.finfo(np.float16).min)
    ids_path, scores_path = _files(record.folder(stream), shard)
    with atomic_write(ids_path) as ids, atomic_write(scores_path) as scores:
        for file, dtype, last in ((ids, record.dtype, record.k), (scores, np.dtype(np.float16), record.k + 1)):
            shape = (record.shards[shard], record.seq_len, last)
            header = {"descr": dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            write_array_header_1_0(file, header)

        def append(top: TopK) -> None:
            ids.write(top.ids.cpu().numpy().astype(record.dtype).tobytes())
            scores.write(top.log_probs.clamp(min=lowest).half().cpu().numpy().tobytes())

        yield append


def write_record(record: TeacherRecord, stream: Path) -> None:
    """Declare a stream's cache complete."""
    assert not missing_shards(record, stream)
    write_json(record.folder(stream) / TEACHER_FILE, record.model_dump(mode="json"))


def find_caches(
    settings: Distillation, manifest: Manifest, build: Path, document_mask: bool, recipe: str
) -> list[tuple[Path, TeacherRecord]]:
    """The cache of every source of a build, in the manifest's order; hashes the teacher where it is a local folder.

    `document_mask` is the phase's; `recipe` is the path of its file.

    Raises UserError, naming the command that writes them, where one is absent, does not fit the stream, the teacher or
    the settings, or comes from other weights than the others.
    """
    command = f"Run: python -m training.teacher {recipe} --teacher {settings.teacher} --top-k {settings.top_k}"
    local = Path(settings.teacher)
    # Hashing the weights takes a while: once, and by the first process alone, whose error ends the others.
    known = (local / "config.json").is_file() and os.environ.get("RANK", "0") == "0"
    identity = identify(settings.teacher, local) if known else None
    found: list[tuple[Path, TeacherRecord]] = []
    for name, source in manifest.sources.items():
        stream = build / source.stream
        records = [(path.parent, _read(path)) for path in sorted(stream.glob(f"teacher-*/{TEACHER_FILE}"))]
        wanted: dict[str, Any] = {
            "stream_fingerprint": source.stream_fingerprint, "k": settings.top_k, "temperature": settings.temperature,
            "document_mask": document_mask, "vocab_size": manifest.tokenizer.vocab_size, "seq_len": manifest.seq_len,
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


class CachedTeacher:
    """Looks a batch's teacher up by the batch's sample numbers."""

    def __init__(self, caches: Sequence[tuple[Path, TeacherRecord]]) -> None:
        """`caches` as from :func:`find_caches`: one per source, in the loader's order."""
        self._caches = list(caches)
        # Samples are numbered through all streams in order, and through each one's shards in order.
        self._owner = [(source, shard) for source, (_, r) in enumerate(caches) for shard in range(len(r.shards))]
        self._ends = np.cumsum([samples for _, record in caches for samples in record.shards])
        self._open = functools.lru_cache(OPEN_SHARDS)(self._map)

    def _map(self, source: int, shard: int) -> tuple[NDArray[Any], NDArray[Any]]:
        folder, record = self._caches[source]
        arrays = []
        for path, last in zip(_files(folder, shard), (record.k, record.k + 1), strict=True):
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise UserError(f"cannot be read: {error}", where=str(path), fix="Delete it and write it again "
                                "with python -m training.teacher.") from None  # fmt: skip
            if array.shape != (record.shards[shard], record.seq_len, last):
                raise UserError(f"has shape {array.shape}, not what {TEACHER_FILE} says", where=str(path))
            arrays.append(array)
        return arrays[0], arrays[1]

    def rows(self, sample_ids: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The stored ids (B, seq_len, k) and log-probabilities (B, seq_len, k + 1) of B samples."""
        picked = []
        for sample in sample_ids:
            place = int(np.searchsorted(self._ends, sample, side="right"))
            source, shard = self._owner[place]
            row = sample - (int(self._ends[place - 1]) if place else 0)
            ids, log_probs = self._open(source, shard)
            picked.append((ids[row], log_probs[row]))
        return np.stack([ids for ids, _ in picked]), np.stack([log_probs for _, log_probs in picked])

    def __call__(self, batch: Mapping[str, Tensor]) -> TopK:
        """The top k of every token of a training batch, flattened to (B * seq_len, ...)."""
        import torch

        from training.distillation.loss import FLOOR, TopK

        device = batch["input_ids"].device
        ids, log_probs = self.rows(batch["sample_ids"].tolist())
        scores = torch.from_numpy(log_probs).to(device).flatten(0, 1).float()
        # Float16 moves the sum of the probabilities by up to a thousandth, and the gradient counts on 1.
        scores = torch.log_softmax(scores, dim=-1).clamp_(min=FLOOR)
        return TopK(torch.from_numpy(ids.astype(np.int64)).to(device).flatten(0, 1), scores)
