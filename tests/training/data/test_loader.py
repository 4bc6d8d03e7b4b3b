"""The mixture loader on real streams: the same samples at every step, whoever reads them and wherever a run goes on."""

from __future__ import annotations

import fcntl
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.base.errors import UserError
from tests.training.loader_ranks import BOS, SEQ_LEN, run_ranks, write_stream

BATCH, STEPS = 12, 31
WEIGHTS = {"web": 0.6, "code": 0.3, "qa": 0.1}
SAMPLES = {"web": 400, "code": 100, "qa": 7}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    for source, (name, samples) in enumerate(SAMPLES.items()):
        write_stream(folder / name, source, samples, dtype="uint32" if name == "code" else "uint16")
    return folder


def loader(data: Path, *, cache: Path | None = None, **changes: Any) -> Any:
    from training.data.loader import MixtureSource, build_loader

    sources = [
        MixtureSource(name, cache / name, str(data / name), weight)
        if cache
        else MixtureSource(name, data / name, None, weight)
        for name, weight in WEIGHTS.items()
    ]
    settings: dict[str, Any] = {
        "seq_len": SEQ_LEN,
        "seed": 17,
        "global_batch": BATCH,
        "canonical_nodes": 2,
        "total_steps": STEPS,
        "virtual_epoch_samples": 80,
        "num_workers": 0,
        "manifest": "abc",
    }
    return build_loader(sources, **(settings | changes))


def read(data: Path, start: int = 0, stop: int = STEPS, **changes: Any) -> list[dict[str, Any]]:
    """This rank's batches of steps [start, stop), reached through a state dict as a trainer would."""
    made = loader(data, **changes)
    state = made.dataset.state_dict(start * BATCH, True)
    made.dataset.load_state_dict(state)
    batches = []
    for batch in made:
        batches.append({key: value.numpy().copy() for key, value in batch.items()})
        if start + len(batches) == stop:
            break
    return batches


def sample_ids(ranks: list[list[dict[str, Any]]]) -> list[list[int]]:
    """Sorted sample ids of each global step."""
    steps = zip(*ranks, strict=True)
    return [sorted(np.concatenate([batch["sample_ids"] for batch in step]).tolist()) for step in steps]


@pytest.fixture(scope="module")
def reference(data: Path) -> list[dict[str, Any]]:
    """The uninterrupted phase on one process without workers."""
    (batches,) = run_ranks(read, data=data)
    assert len(batches) == STEPS
    return batches


@pytest.mark.parametrize(
    ("world", "nodes", "workers"), [(2, 1, 1), (4, 1, 0), (1, 1, 4), (2, 2, 0), (4, 2, 2), (3, 3, 0), (12, 4, 0)]
)
def test_a_step_has_the_same_samples_in_every_world(
    data: Path, reference: list[dict[str, Any]], world: int, nodes: int, workers: int
) -> None:
    ranks = run_ranks(read, world, nodes, data=data, num_workers=workers)
    assert sample_ids(ranks) == sample_ids([reference])


def test_shares_and_coverage_of_what_is_read(reference: list[dict[str, Any]]) -> None:
    from training.data.mixture import plan_epochs

    plan = plan_epochs(list(WEIGHTS.values()), STEPS, BATCH, 80)
    assert plan.epochs > 3 and len(set(np.diff(plan.step_ends).tolist())) == 2
    sources = np.concatenate([batch["source_ids"] for batch in reference])
    ids = np.concatenate([batch["sample_ids"] for batch in reference])
    for end, drawn in zip(plan.step_ends.tolist(), plan.draws.tolist(), strict=True):
        assert np.bincount(sources[: end * BATCH], minlength=3).tolist() == drawn
    begin = 0
    for samples, drawn in zip(SAMPLES.values(), plan.draws[-1].tolist(), strict=True):
        counts = np.bincount(ids, minlength=sum(SAMPLES.values()))[begin : begin + samples]
        assert counts.min() >= drawn // samples and counts.max() <= -(-drawn // samples)
        begin += samples


def test_batches_hold_what_the_streams_hold(reference: list[dict[str, Any]]) -> None:
    offsets = np.cumsum([0, *SAMPLES.values()])
    for batch in reference:
        ids, labels = batch["input_ids"], batch["labels"]
        assert ids.dtype == labels.dtype == np.int64 and ids.shape == labels.shape == (BATCH, SEQ_LEN)
        assert (ids[:, 1:] == labels[:, :-1]).all()
        assert (ids[:, 0] == batch["source_ids"]).all()
        assert (ids[:, 1] == batch["sample_ids"] - offsets[batch["source_ids"]]).all() or BOS in ids[:, 1]
        source, sample = batch["source_ids"][:, None], (batch["sample_ids"] - offsets[batch["source_ids"]])[:, None]
        last = 100 + (SEQ_LEN * (sample + 3) * (source + 1)) % 1000
        assert (labels[:, -1:] == last).all()


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_resuming_goes_on_exactly(data: Path, reference: list[dict[str, Any]], workers: int) -> None:
    """At step 0, inside an epoch, at its end, in later epochs, at the last step, and after it."""
    for start in (0, 3, 6, 13, 20, STEPS - 1, STEPS):
        stop = min(start + 9, STEPS)
        (batches,) = run_ranks(read, data=data, start=start, stop=stop, num_workers=workers)
        assert len(batches) == stop - start
        for ours, theirs in zip(batches, reference[start:stop], strict=True):
            assert ours.keys() == theirs.keys()
            assert all((ours[key] == theirs[key]).all() for key in ours)


def test_changing_the_number_of_processes_on_the_way(data: Path, reference: list[dict[str, Any]]) -> None:
    steps: list[list[int]] = []
    for world, stop in ((1, 5), (2, 14), (4, 19), (1, STEPS)):
        steps += sample_ids(run_ranks(read, world, data=data, start=len(steps), stop=stop, num_workers=world % 2))
    assert steps == sample_ids([reference])


def test_cached_and_evicted_shards_change_nothing(data: Path, reference: list[dict[str, Any]], tmp_path: Path) -> None:
    limit = sum((data / name / "index.json").stat().st_size for name in SAMPLES) + 20_000
    (batches,) = run_ranks(read, data=data, cache=tmp_path, cache_limit=limit, num_workers=2)
    assert sample_ids([batches]) == sample_ids([reference])
    held = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert held <= limit < sum(path.stat().st_size for path in data.rglob("*.mds*"))
    assert not list(data.rglob("*.tmp")) and len(list(data.rglob("*.zstd"))) > 20


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _reads_with_others(data: Path, cache: Path) -> int:
    """Two open loaders fill and read one cache."""
    one, two = (iter(loader(data, cache=cache, num_workers=1)) for _ in range(2))
    return sum((a["sample_ids"] == b["sample_ids"]).all().item() for a, b in zip(one, two, strict=True))


def test_a_cache_without_a_limit_is_shared_and_the_data_is_never_written_to(data: Path, tmp_path: Path) -> None:
    copy = _copy(data, tmp_path / "copy")
    before = _files(copy)
    assert run_ranks(_reads_with_others, data=copy, cache=tmp_path / "cache") == [STEPS]
    assert _files(copy) == before
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept and all(name.endswith(".mds") for name in kept), "shards alone, unpacked"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_that_cannot_be_written_is_no_damage(data: Path, tmp_path: Path, workers: int) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/web: unpacked shards cannot be written: Not a directory.*--cache"):
        run_ranks(read, data=data, cache=tmp_path / "file", num_workers=workers)
    with pytest.raises(UserError) as error:
        run_ranks(_full_disk, data=data, cache=tmp_path / "full", num_workers=workers)
    text = error.value.one_line()
    assert "cannot be written: No space left on device" in text and str(tmp_path / "full") in text
    assert "--cache" in text and "Build" not in text
    left = [path for path in (tmp_path / "full").rglob("*") if path.is_file()]
    assert not left


def _full_disk(data: Path, **changes: Any) -> Any:
    """The loader where every write of an unpacked shard fails as on a full disk."""
    import errno

    from training.data import stream

    class Full:
        def write(self, piece: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None: ...

    def opened(path: str, mode: str) -> Any:
        if "w" not in mode:
            return open(path, mode)
        open(path, mode).close()
        return Full()

    stream.open = opened  # type: ignore[attr-defined]
    return read(data, **changes)


def _two_phases(data: Path, cache: Path) -> tuple[str, int]:
    limit = 1 << 30
    first = loader(data, cache=cache, num_workers=1, cache_limit=limit)
    assert sum(1 for _ in first) == STEPS
    with pytest.raises(UserError) as error:
        loader(data, cache=cache, cache_limit=limit)
    first.dataset.close()
    return error.value.what, sum(1 for _ in loader(data, cache=cache, num_workers=1, cache_limit=limit))


def test_a_process_goes_on_to_another_phase(data: Path, tmp_path: Path) -> None:
    for refused, steps in run_ranks(_two_phases, 2, data=data, cache=tmp_path):
        assert "already uses the cache folder" in refused and steps == STEPS


def test_documents_are_told_apart_by_the_boundary_ids() -> None:
    from training.data.loader import Collator

    ids = np.array([[5, 1, 9, 5, 5, 9, 3], [1, 2, 3, 9, 9, 5, 4]], np.uint16)
    samples = [{"ids": row, "sample_id": i, "source": 0} for i, row in enumerate(ids)]
    expected = {
        (5, None): [[0, 0, 0, 1, 2, 2], [0, 0, 0, 0, 0, 1]],
        (None, 9): [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 2]],
        (5, 9): [[0, 0, 0, 1, 2, 2], [0, 0, 0, 0, 1, 2]],
    }
    for (bos, eos), documents in expected.items():
        batch = Collator(bos, eos, document_mask=True)(samples)
        assert batch["doc_ids"].tolist() == documents
    assert "doc_ids" not in Collator()(samples)


def _changed(data: Path, allow: bool, **changes: Any) -> Any:
    saved = loader(data).dataset.state_dict(5 * BATCH, True)
    dataset = loader(data, allow_changed_data=allow, **changes).dataset
    dataset.load_state_dict(saved)
    return dataset.state_dict(6 * BATCH, True)


def test_a_checkpoint_of_other_data_is_refused(data: Path) -> None:
    with pytest.raises(UserError) as error:
        run_ranks(_changed, data=data, allow=False, seed=18, manifest="xyz")
    text = error.value.one_line()
    assert "seed was 17, is 18" in text and "manifest was abc, is xyz" in text and "--allow-changed-data" in text
    assert "seq_len" not in text
    (state,) = run_ranks(_changed, data=data, allow=True, seed=18)
    assert state["step"] == 6 and state["changes"] == [{"step": 5, "changed": {"seed": [17, 18]}}]


def _copy(data: Path, folder: Path) -> Path:
    for name in SAMPLES:
        for path in (data / name).glob("*"):
            if path.suffix != ".mds":
                (folder / name).mkdir(parents=True, exist_ok=True)
                (folder / name / path.name).write_bytes(path.read_bytes())
    return folder


def test_streams_that_cannot_be_read_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stream 'web' is not there.*corpus\.build"):
        run_ranks(read, data=tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"'web' holds .*not samples of 64 \+ 1 ids"):
        run_ranks(read, data=data, seq_len=64)
    with pytest.raises(UserError, match="no remote to fetch them from"):
        run_ranks(read, data=data, cache_limit=1 << 30)
    copy = _copy(data, tmp_path / "copy")
    (copy / "code" / "index.json").write_text("{")
    with pytest.raises(UserError, match="index of stream 'code' cannot be read"):
        run_ranks(read, data=copy)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_shard_is_named_and_nothing_ends_quietly(data: Path, tmp_path: Path, workers: int) -> None:
    copy = _copy(data, tmp_path / "copy")
    shard = copy / "code" / "shard.00001.mds.zstd"
    content = bytearray(shard.read_bytes())
    content[-9] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError) as error:
        run_ranks(read, data=copy, num_workers=workers)
    text = error.value.one_line()
    assert text.startswith("stream 'code', shard shard.00001.mds.zstd") and "Checksum failure" in text
    assert "--verify" in text and "Traceback" not in text
    shard.unlink()
    with pytest.raises(UserError, match=r"stream 'code', shard shard\.00001\.mds\.zstd.*is missing \(1 missing"):
        run_ranks(read, data=copy, num_workers=workers)


def test_a_cut_off_unpacked_shard_is_named(data: Path, tmp_path: Path) -> None:
    copy = _copy(data, tmp_path / "copy")
    run_ranks(read, data=copy)
    shard = copy / "web" / "shard.00003.mds"
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"stream 'web'.*shard\.00003\.mds ends early; delete that file"):
        run_ranks(read, data=copy)


def _stall(data: Path) -> list[str]:
    made = loader(data, stall_seconds=0.4)
    records: list[str] = []
    handler = logging.Handler()
    logging.getLogger("training.data.dataset").addHandler(handler)
    # Whoever holds the cache lock holds up every worker that needs a shard.
    with open(made.dataset._cache_filelock_path, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def emit(record: logging.LogRecord) -> None:
            records.append(record.getMessage())
            fcntl.flock(held, fcntl.LOCK_UN)

        handler.emit = emit  # type: ignore[method-assign]
        next(iter(made))
    return records


def test_a_stuck_loader_says_what_it_waits_for(data: Path, tmp_path: Path) -> None:
    (records,) = run_ranks(_stall, data=_copy(data, tmp_path / "copy"))
    assert records and "has waited" in records[0] and "stream '" in records[0] and "shard shard.0" in records[0]


def test_worlds_that_cannot_share_the_batch_are_refused(data: Path) -> None:
    with pytest.raises(UserError, match=r"5 processes \(1 x 5\) cannot share a global batch of 12.*composer -n 4 "):
        run_ranks(read, 5, data=data)
    with pytest.raises(UserError, match=r"not a multiple of canonical_nodes 5.*Use a divisor of 12"):
        run_ranks(read, data=data, canonical_nodes=5)


def test_legal_world_sizes() -> None:
    from training.data.elastic import legal_world_sizes

    assert legal_world_sizes(2048, 16, 8) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]
    assert legal_world_sizes(12, 2, 4) == [1, 2, 3, 4]
    assert legal_world_sizes(24, 2, 4) == [1, 2, 3, 4, 8, 12, 24]
    assert {96, 192, 768} <= set(legal_world_sizes(1536, 16, 8))  # 12 nodes, which 16 canonical ones do not divide


@settings(max_examples=60, deadline=None)
@given(
    canonical=st.integers(1, 6), per_canonical=st.integers(1, 12), gpus=st.integers(1, 4), steps=st.integers(1, 7),
    workers=st.integers(1, 3), data=st.data(),
)  # fmt: skip
def test_every_legal_world_deals_the_same_steps(
    canonical: int, per_canonical: int, gpus: int, steps: int, workers: int, data: st.DataObject
) -> None:
    """The library's partitioning, as the dataset calls it, at every legal world size and from every start."""
    from streaming.base.partition import get_partitions

    from training.data.elastic import legal_world_sizes

    batch = canonical * per_canonical
    start = data.draw(st.integers(0, steps - 1))

    def steps_of(world: int) -> list[list[int]]:
        nodes, ranks = (1, world) if world <= gpus else (world // gpus, gpus)
        dealt = get_partitions(
            "relaxed", steps * batch, canonical, nodes, ranks, workers, batch // world, start * batch, canonical
        )
        in_turn = dealt.transpose(3, 2, 0, 1, 4).reshape(-1, batch)
        return [sorted(step) for step in in_turn.tolist() if step[0] != -1]

    expected = steps_of(1)
    assert len(expected) == steps - start
    if start == 0:
        assert sorted(sample for step in expected for sample in step) == list(range(steps * batch))
    for world in legal_world_sizes(batch, canonical, gpus):
        assert steps_of(world) == expected


def _arrange_large(folder: Path, total_steps: int) -> tuple[float, float, int]:
    from streaming.base.batching import generate_work
    from streaming.base.world import World

    from training.base.memory import peak_memory
    from training.data.loader import MixtureDataset, MixtureSource

    before = time.process_time()  # not the wall's: other programs may be running
    names = sorted(path.name for path in folder.iterdir())
    sources = [MixtureSource(n, folder / n, str(folder / n), 1.0 + i) for i, n in enumerate(names)]
    sources = [MixtureSource(s.name, folder.parent / "cache" / s.name, s.remote, s.weight) for s in sources]
    dataset = MixtureDataset(
        sources, seq_len=2048, seed=1, global_batch=2048, canonical_nodes=16, total_steps=total_steps,
        virtual_epoch_samples=1 << 20, shards_needed=False,
    )  # fmt: skip
    opened = time.process_time() - before
    before = time.process_time()
    epoch = dataset.plan.epochs * 3 // 5
    dataset.epoch_size = dataset.plan.samples(epoch)
    work = generate_work("random", dataset, World(16, 8, 2, 0), epoch, 0)
    assert work.shape[:3] == (16, 8, 2) and (work != -1).sum() == dataset.epoch_size
    arranged = time.process_time() - before
    return opened, arranged, peak_memory() // 1024


def test_arranging_an_epoch_of_a_billion_samples(tmp_path: Path) -> None:
    from training.data.simulation import write_index

    for source in range(14):
        write_index(tmp_path / "streams" / f"s{source:02}", samples=70_000_000, seq_len=2048)
    ((opened, arranged, peak_kib),) = run_ranks(_arrange_large, folder=tmp_path / "streams", total_steps=500_000)
    assert arranged < 10 and opened < 20, f"opened in {opened:.1f} s, arranged in {arranged:.1f} s"
    assert peak_kib < 2 << 20
