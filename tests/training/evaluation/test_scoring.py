"""Scoring and continuing text, against the plain model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.evaluation.evaluation_kit import TEXT, ignore
from tests.training.trainer_kit import SEQ_LEN, VOCAB
from training.evaluation.scoring import Scorer
from training.evaluation.subject import Subject


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
