"""Evaluation: perplexity by its published protocol, held-out samples that really are, and tasks of the harness."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from corpus.base.errors import UserError
from tests.training.trainer_kit import ROOT, SEQ_LEN, VOCAB, build
from training.data.mixture import Cycle, arrange_epoch, plan_epochs
from training.data.samples import StreamSamples
from training.evaluate import main
from training.evaluation.heldout import choose
from training.evaluation.perplexity import read_rows, wikitext
from training.evaluation.scoring import Scorer
from training.evaluation.subject import Subject, load_subject
from training.model.decoder import MobileLM
from training.run import checkpoint
from training.run.folder import RunFolder
from training.run.options import parse_args
from training.run.phases import resolve

CPU = torch.device("cpu")
ROWS = ["", " = Heading = \n", "", " The quick brown fox jumps over the lazy dog . \n", " It said : hello world ! \n"]
TEXT = "the quick brown fox jumps over a lazy dog while it says hello world and the answer is 42 "


def make_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        [TEXT, *ROWS],
        trainers.BpeTrainer(
            vocab_size=VOCAB, special_tokens=["<|bos|>", "<|eos|>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    path.parent.mkdir(parents=True)
    tokenizer.save(str(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at step 4 of 24, whose phase draws 135 of the 150 samples of source a, and b's 40 more than once."""
    folder = tmp_path_factory.mktemp("evaluate")
    recipe = build(folder)
    make_tokenizer(folder / "data" / "tokenizers" / "t" / "tokenizer.json")
    arguments = ["--size", "tiny", "--recipe", recipe, "--data", folder / "data", "--out", folder / "runs"]
    options = parse_args([*map(str, arguments), "--run-name", "run"])
    (phase,) = resolve(options)
    run = RunFolder(folder / "runs" / "run")
    run.start(options, [phase], None)
    run.enter_phase(phase, options.data)
    torch.manual_seed(0)
    model = MobileLM(phase.model)
    # Large weights make the model sure of something, so that greedy choices do not hang on rounding.
    weights = {name: 5 * tensor if tensor.dim() > 1 else tensor for name, tensor in model.state_dict().items()}
    facts = {
        "phase": 0, "recipe": phase.name, "step": 4, "tokens": 1024, "finished": False, "model": asdict(phase.model),
        "data": {}, "world_size": 1, "microbatch": 8,
    }  # fmt: skip
    checkpoint.write(run.checkpoints, facts, weights, {})
    return folder


@pytest.fixture(scope="module")
def subject(folder: Path) -> Subject:
    return load_subject(folder / "runs" / "run", CPU)


def evaluate(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> dict[str, Any]:
    run = folder / "runs" / "run"
    main([str(run), "--data", str(folder / "data"), "--json", *map(str, arguments)])
    return json.loads(capsys.readouterr().out)


def write_text(folder: Path, rows: list[str]) -> list[Path]:
    """The same rows in the three forms that are read."""
    pq.write_table(pa.table({"text": rows}), folder / "t.parquet")
    (folder / "t.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    (folder / "t.raw").write_text("".join(row or " \n" for row in rows))
    return [folder / "t.parquet", folder / "t.jsonl", folder / "t.raw"]


def test_rows_are_the_same_in_every_file_format(tmp_path: Path) -> None:
    assert [read_rows(path) for path in write_text(tmp_path, ROWS)] == [ROWS] * 3
    (tmp_path / "bad.jsonl").write_text('{"txt": 1}\n')
    with pytest.raises(UserError, match="raw text"):
        read_rows(tmp_path / "bad.jsonl")


def test_wikitext_perplexity_follows_the_protocol(
    folder: Path, subject: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ROWS * 20
    path = write_text(tmp_path, rows)[0]
    result = evaluate(capsys, folder, "--wikitext", path, "--window", 48)["wikitext"]
    ids = [0, *subject.tokenizer().encode("\n\n".join(rows))]
    losses = []
    for start in range(0, len(ids) - 47, 48):
        window = torch.tensor([ids[start : start + 48]])
        logits = subject.model.logits(subject.model(window))[0, :-1]
        losses.append(F.cross_entropy(logits, window[0, 1:]).item())
    assert len(losses) == result["windows"] == len(ids) // 48 and result["tokens"] == len(ids)
    assert result["perplexity"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert not result["published_protocol"]
    stored = json.loads((folder / "runs/run/eval/wikitext-phase00-step000000004.json").read_text())
    assert stored["wikitext"] == result and stored["step"] == 4 and stored["weights_xxh3"]
    with pytest.raises(UserError, match="less than one window of 2048"):
        wikitext(subject, write_text(tmp_path, ROWS)[0], 2048, 8)


@settings(max_examples=60, deadline=None)
@given(
    shards=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    share=st.floats(0.05, 1.4),
    seed=st.integers(0, 99),
    count=st.integers(1, 300),
)
def test_held_out_samples_are_those_that_the_phase_never_draws(
    shards: list[int], share: float, seed: int, count: int
) -> None:
    """Against the loader's own arrangement, with a second source in front."""
    total = sum(shards)
    steps = max(1, round(total * share) // 2)
    plan = plan_epochs([1.0, 1.0], steps, 4, 16)
    cycles = [Cycle("first", [5, 7], seed), Cycle("a", shards, seed)]
    everything = np.concatenate([arrange_epoch(plan, cycles, epoch)[1] for epoch in range(plan.epochs)])
    drawn = {int(sample) - 12 for sample in everything if sample >= 12}
    front = np.zeros(len(shards), np.int64)
    pieces = Cycle("a", shards, seed).window(0, min(int(plan.draws[-1, 1]), total))
    front[pieces.shards] = pieces.sizes
    choice = choose(shards, front, count)
    starts = np.cumsum(shards) - shards
    chosen = [int(starts[shard] + sample) for shard, samples in choice.rows for sample in samples]
    assert choice.unseen == total - len(drawn) and choice.seen == (choice.unseen == 0)
    assert len(set(chosen)) == len(chosen) == choice.count == min(count, choice.unseen or total)
    assert all(0 <= sample < total for sample in chosen)
    if not choice.seen:
        assert not drawn & set(chosen)


def test_held_out_loss_per_source(folder: Path, subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate(capsys, folder)["held_out"]
    a, b = result["sources"]["a"], result["sources"]["b"]
    assert (a["seen_in_training"], a["samples"], a["samples_never_drawn"]) == (False, 15, 15)
    assert (b["seen_in_training"], b["samples"], b["samples_never_drawn"]) == (True, 40, 0)
    assert result["loss"] == pytest.approx(0.7 * a["loss"] + 0.3 * b["loss"])
    stream = StreamSamples(folder / "data" / "streams" / "b-40")
    rows = np.concatenate([stream.read(shard) for shard in range(len(stream.shard_samples))]).astype(np.int64)
    ids = torch.from_numpy(rows)
    assert b["loss"] == pytest.approx(subject.model.loss(ids[:, :-1], ids[:, 1:]).item(), rel=1e-5)
    assert evaluate(capsys, folder, "--held-out", 3)["held_out"]["sources"]["a"]["samples"] == 3
    main([str(folder / "runs" / "run"), "--data", str(folder / "data")])
    text = capsys.readouterr().out
    assert "yes: the run draws all of it" in text and "results in" in text


def test_a_phase_that_read_the_stream_before_counts_too(folder: Path, subject: Subject) -> None:
    """The same stream under another seed: only what neither phase draws is held out."""
    from training.evaluation import heldout

    stream = StreamSamples(folder / "data" / "streams" / "a-150")
    other = subject.recipe.model_copy(update={"seed": 99})
    fronts = [heldout.drawn(each, subject.manifest, "a", stream.shard_samples) for each in (other, subject.recipe)]
    both = Subject(**{**vars(subject), "phases": [other, subject.recipe]})
    assert heldout._front(both, "a", stream).tolist() == np.maximum(*fronts).tolist() != fronts[1].tolist()


def test_data_of_another_build_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        main([str(folder / "runs" / "run"), "--data", str(tmp_path)])
    build(tmp_path, samples=(150, 40))
    build(tmp_path / "other", samples=(151, 40))
    (tmp_path / "other/data/streams/a-151").rename(tmp_path / "data/streams/x")
    (tmp_path / "data/streams/a-150").rename(tmp_path / "data/streams/y")
    (tmp_path / "data/streams/x").rename(tmp_path / "data/streams/a-150")
    with pytest.raises(UserError, match="holds 151 samples, the run's 'a' had 150"):
        main([str(folder / "runs" / "run"), "--data", str(tmp_path / "data")])


@pytest.fixture(scope="module")
def scorer(subject: Subject) -> Scorer:
    return Scorer(subject, batch=3)


def ignore(_: int) -> None:
    """Nobody is told of progress."""


def test_log_likelihoods_are_those_of_the_plain_model(subject: Subject, scorer: Scorer) -> None:
    random = np.random.default_rng(3)
    pairs = [(random.integers(2, VOCAB, n).tolist(), random.integers(2, VOCAB, m).tolist())
             for n, m in [(5, 2), (1, 1), (30, 9), (40, 3), (7, 40)]]  # fmt: skip
    # One whose continuation is what greedy decoding gives.
    best = int(subject.model.logits(subject.model(torch.tensor([[5, 6, 7]])))[0, -1].argmax())
    pairs.append(([5, 6, 7], [best]))
    told: list[int] = []
    for (context, continuation), (score, greedy) in zip(pairs, scorer.log_likelihoods(pairs, told.append), strict=True):
        whole = (context + continuation)[-SEQ_LEN - 1 :]
        logits = subject.model.logits(subject.model(torch.tensor([whole[:-1]])))[0]
        kept = min(len(continuation), SEQ_LEN)
        log_probs = F.log_softmax(logits, -1)[-kept:]
        expected = log_probs.gather(1, torch.tensor(whole[-kept:]).unsqueeze(1))
        assert score == pytest.approx(expected.sum().item(), rel=1e-4)
        assert greedy == (log_probs.argmax(1).tolist() == whole[-kept:])
    assert sum(told) == len(pairs)


def test_texts_are_split_as_one_and_begin_like_documents(scorer: Scorer) -> None:
    context, continuation = scorer.split("the quick ", "brown fox")
    assert context[0] == 0 and scorer.tokenizer.decode(context[1:]) == "the quick"
    assert scorer.tokenizer.decode(continuation) == " brown fox"
    assert scorer.split("", "fox")[0] == [0]
    # A document that spells a special token stays text.
    assert not {0, 1} & set(scorer.tokenizer.encode("<|bos|>a<|eos|>"))


@settings(max_examples=25, deadline=None)
@given(words=st.integers(0, 60))
def test_windows_score_every_token_of_a_text_once(scorer: Scorer, words: int) -> None:
    text = " ".join((TEXT * 4).split()[:words])
    ids, windows = scorer.tokenizer.encode(text), scorer.windows(text)
    assert [i for _, scored in windows for i in scored] == ids
    end = 0
    for context, scored in windows:
        end += len(scored)
        assert context and len(context) + len(scored) <= SEQ_LEN + 1
        assert context == ([0, *ids][end + 1 - len(scored) - len(context) : end + 1 - len(scored)])


def test_generation_is_greedy_and_stops(subject: Subject, scorer: Scorer) -> None:
    contexts = ["the quick", "hello world and", TEXT * 3, "42"]
    plain = []
    for context in contexts:
        ids = [0, *scorer.tokenizer.encode(context)][-(SEQ_LEN - 6) :]
        made: list[int] = []
        while len(made) < 6:
            token = int(subject.model.logits(subject.model(torch.tensor([ids + made])))[0, -1].argmax())
            if token in (0, 1):
                break
            made.append(token)
        plain.append(scorer.tokenizer.decode(made))
    assert scorer.generate(contexts, [], 6, ignore) == plain
    stop = plain[0][1:3]
    assert scorer.generate(contexts[:1], [stop], 6, ignore) == [plain[0][: plain[0].index(stop)]]


def test_without_the_harness_its_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"mobilecorpus\[eval\]"):
        main([str(folder / "runs" / "run"), "--tasks", "piqa"])


@pytest.fixture
def task_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("lm_eval")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    questions = [
        {"q": "the quick brown", "choices": ["fox", "lazy dog"], "answer": 0},
        {"q": "hello", "choices": ["42", "world"], "answer": 1},
        {"q": "the answer is", "choices": ["over", "42"], "answer": 1},
    ]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in questions))
    common = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    tasks = {
        "own_choice": {
            "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{choices}}",
            "doc_to_target": "answer", "metric_list": [{"metric": "acc"}],
        },
        "own_text": {
            "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{q}} " + TEXT,
            "metric_list": [{"metric": "bits_per_byte"}],
        },
        "own_answer": {
            "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{choices[answer]}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4}, "metric_list": [{"metric": "exact_match"}],
        },
    }  # fmt: skip
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, task in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **common, **task}))
    return folder


def test_local_tasks_run_offline(
    folder: Path, scorer: Scorer, task_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "own_choice,own_text,own_answer"
    found = evaluate(capsys, folder, "--tasks", names, "--task-dir", task_dir)["tasks"]["results"]
    questions = [json.loads(line) for line in (task_dir.parent / "questions.jsonl").read_text().splitlines()]
    right = 0
    for each in questions:
        pairs = [scorer.split(each["q"], f" {choice}") for choice in each["choices"]]
        scores = [score for score, _ in scorer.log_likelihoods(pairs, ignore)]
        right += scores.index(max(scores)) == each["answer"]
    assert found["own_choice"]["acc,none"] == pytest.approx(right / 3)
    texts = [f"{each['q']} {TEXT}" for each in questions]
    bits = sum(score for text in texts for score, _ in scorer.log_likelihoods(scorer.windows(text), ignore))
    size = sum(len(text.encode()) for text in texts)
    assert found["own_text"]["bits_per_byte,none"] == pytest.approx(-bits / size / math.log(2), rel=1e-4)
    assert found["own_answer"]["exact_match,none"] == 0
    stored = json.loads((folder / "runs/run/eval/tasks-phase00-step000000004.json").read_text())
    assert stored["tasks"]["results"] == found


def test_unknown_tasks_are_refused(folder: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.evaluation import harness

    # Without the harness's own thousands of tasks, whose list takes seconds to read.
    local = harness.TaskManager(include_path=str(task_dir), include_defaults=False)
    monkeypatch.setattr(harness, "TaskManager", lambda **_: local)
    with pytest.raises(UserError, match="Did you mean 'own_choice'"):
        main([str(folder / "runs" / "run"), "--tasks", "own_choise", "--task-dir", str(task_dir)])


def test_help_answers_without_heavy_imports() -> None:
    code = "import sys, training.evaluate, training.teacher; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "streaming", "lm_eval", "transformers"} & set(out.stdout.split())
