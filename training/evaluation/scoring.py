"""Scoring and continuing text with a model: what the tasks of lm-eval-harness ask for, without knowing the harness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F

from training.evaluation.subject import RunTokenizer, Subject, padded

LOGITS_AT_ONCE = 1024
"""Positions whose float32 logits exist at once."""

Advance = Callable[[int], None]
"""Told how many requests were just finished."""


class Scorer:
    """Every text is read as a document's beginning: behind the id that documents follow in the training data.

    Longer inputs than the sequences of the training lose their front. On a GPU the products are in bfloat16.
    """

    def __init__(self, subject: Subject, batch: int) -> None:
        """`batch` is the number of requests per forward pass."""
        self.model, self.device, self.batch = subject.model, subject.device, batch
        self.tokenizer: RunTokenizer = subject.tokenizer()
        self.start_id = subject.start_id
        self.stops = {
            i for i in (subject.manifest.tokenizer.bos_id, subject.manifest.tokenizer.eos_id) if i is not None
        }
        self.length = subject.manifest.seq_len

    def split(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of a context, the start id first, and of its continuation, at least one.

        Both are tokenised as one text; white space at the context's end goes to the continuation, as words carry theirs
        in front. The harness's own models do the same.
        """
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation
        whole = self.tokenizer.encode(stripped + continuation)
        cut = min(len(self.tokenizer.encode(stripped)), max(len(whole) - 1, 0))
        return [self.start_id, *whole[:cut]], whole[cut:]

    def windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """(context, continuation) pairs that score every token of a text once, each in one input's length."""
        ids = self.tokenizer.encode(text)
        pairs = []
        for begin in range(0, len(ids), self.length):
            end = min(begin + self.length, len(ids))
            context = [self.start_id] if begin == 0 else ids[end - self.length - 1 : begin]
            pairs.append((context, ids[begin:end]))
        return pairs

    @torch.inference_mode()
    def log_likelihoods(
        self, pairs: Sequence[tuple[list[int], list[int]]], advance: Advance
    ) -> list[tuple[float, bool]]:
        """For (context, continuation) ids: the continuation's log-probability, and whether greedy decoding gives it."""
        results = [(0.0, True)] * len(pairs)
        # Longest first: inputs of one pass are of like length, and too large a batch fails at once.
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
        for start in range(0, len(order), self.batch):
            some = order[start : start + self.batch]
            wholes = [(pairs[i][0] + pairs[i][1])[-self.length - 1 :] for i in some]
            counts = [min(len(pairs[i][1]), len(whole) - 1) for i, whole in zip(some, wholes, strict=True)]
            with self._precision():
                hidden = self.model(padded([whole[:-1] for whole in wholes], self.device))
                last = torch.cat(
                    [hidden[row, len(whole) - 1 - count : len(whole) - 1]
                     for row, (whole, count) in enumerate(zip(wholes, counts, strict=True))]
                )  # fmt: skip
                targets = torch.tensor(
                    [i for whole, count in zip(wholes, counts, strict=True) for i in whole[len(whole) - count :]],
                    dtype=torch.int64, device=self.device,
                )  # fmt: skip
                scores, greedy = [], []
                for part in range(0, len(targets), LOGITS_AT_ONCE):
                    logits = self.model.logits(last[part : part + LOGITS_AT_ONCE]).float()
                    wanted = targets[part : part + LOGITS_AT_ONCE].unsqueeze(1)
                    scores.append(F.log_softmax(logits, dim=-1).gather(1, wanted).squeeze(1))
                    greedy.append(logits.argmax(1) == wanted.squeeze(1))
            if scores:
                split_scores, split_greedy = torch.cat(scores).double().split(counts), torch.cat(greedy).split(counts)
                for i, score, same in zip(some, split_scores, split_greedy, strict=True):
                    results[i] = score.sum().item(), bool(same.all())
            advance(len(some))
        return results

    @torch.inference_mode()
    def generate(self, contexts: Sequence[str], until: Sequence[str], most: int, advance: Advance) -> list[str]:
        """Greedy continuations of up to `most` tokens, cut before the first of the strings `until`.

        There is no key-value cache: each token costs a pass over the whole text.
        """
        results = [""] * len(contexts)
        room = max(1, self.length - most)
        prompts = [[self.start_id, *self.tokenizer.encode(context)][-room:] for context in contexts]
        order = sorted(range(len(contexts)), key=lambda i: -len(prompts[i]))
        for start in range(0, len(order), self.batch):
            some = order[start : start + self.batch]
            rows = {i: list(prompts[i]) for i in some}
            for _ in range(most):
                live = list(rows)
                with self._precision():
                    hidden = self.model(padded([rows[i] for i in live], self.device))
                    ends = torch.tensor([len(rows[i]) - 1 for i in live], device=self.device)
                    logits = self.model.logits(hidden[torch.arange(len(live), device=self.device), ends])
                for i, token in zip(live, logits.argmax(1).tolist(), strict=True):
                    if token not in self.stops:
                        rows[i].append(token)
                        results[i] = self.tokenizer.decode(rows[i][len(prompts[i]) :])
                    found = [place for stop in until if (place := results[i].find(stop)) >= 0]
                    if found:
                        results[i] = results[i][: min(found)]
                    if found or token in self.stops or len(rows[i]) >= self.length:
                        del rows[i]
                if not rows:
                    break
            advance(len(some))
        return results

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()
