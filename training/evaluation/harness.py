"""Tasks of lm-eval-harness. Importing this module needs the `eval` extra."""

from __future__ import annotations

import logging
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from corpus.base.errors import UserError, nearest
from training.base.progress_bar import Progress
from training.evaluation.scoring import Scorer
from training.evaluation.subject import Subject

MOST_TOKENS = 256
"""Tokens generated where a task sets no limit; the harness's own default."""

LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens")
"""Names under which tasks give that limit."""

KEPT = ("results", "groups", "versions", "n-shot", "n-samples", "higher_is_better")
"""Parts of the harness's report that go into the result file."""


class HarnessModel(LM):  # type: ignore[misc, unused-ignore]
    """A checkpoint of ours behind the interface that the harness's tasks call."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(log-probability, is greedy) of each request's continuation given its context."""
        pairs = [self.scorer.split(*request.args) for request in requests]
        with Progress("log-likelihoods", len(pairs), "requests") as progress:
            return self.scorer.log_likelihoods(pairs, progress.advance)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-probability of each request's whole text."""
        windows = [(place, pair) for place, request in enumerate(requests)
                   for pair in self.scorer.windows(request.args[0])]  # fmt: skip
        with Progress("texts", len(windows), "windows") as progress:
            scores = self.scorer.log_likelihoods([pair for _, pair in windows], progress.advance)
        totals = [0.0] * len(requests)
        for (place, _), (score, _) in zip(windows, scores, strict=True):
            totals[place] += score
        return totals

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """A greedy continuation of each request's context; raises UserError for tasks that sample."""
        groups: dict[tuple[tuple[str, ...], int], list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            groups[_settings(request.args[1])].append(place)
        results = [""] * len(requests)
        with Progress("generation", len(requests), "requests") as progress:
            for (until, most), places in groups.items():
                contexts = [requests[place].args[0] for place in places]
                for place, text in zip(
                    places, self.scorer.generate(contexts, until, most, progress.advance), strict=True
                ):
                    results[place] = text
        return results


def _settings(wanted: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    if wanted.get("do_sample") and float(wanted.get("temperature", 1.0)) > 0:
        raise UserError("a task asks for sampled text; only greedy decoding is supported", where="--tasks")
    until = wanted.get("until") or []
    most = next((int(wanted[name]) for name in LIMITS if wanted.get(name) is not None), MOST_TOKENS)
    return tuple([until] if isinstance(until, str) else until), most


def run_tasks(
    subject: Subject, names: list[str], task_dir: Path | None, batch: int, shots: int | None, limit: int | None
) -> dict[str, Any]:
    """Evaluate tasks, groups or tags of the harness, or of the YAML files in `task_dir`.

    `shots` examples in front of each question (None: as the task says), on the first `limit` documents of each.
    Raises UserError for unknown tasks and for data that cannot be had.
    """
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    if task_dir is not None and not task_dir.is_dir():
        raise UserError("is no folder", where="--task-dir")
    local = None if task_dir is None else str(task_dir)
    # The harness's own tasks are thousands of files; leave them alone where the folder has all that is asked.
    manager = TaskManager(include_path=local, include_defaults=False)
    if any(name not in manager.all_tasks for name in names):
        print("reading the harness's list of tasks", file=sys.stderr, flush=True)
        manager = TaskManager(include_path=local)
    for name in names:
        if name not in manager.all_tasks:
            raise UserError(f"no task '{name}'", where="--tasks", fix=nearest(name, manager.all_tasks))
    try:
        report = lm_eval.simple_evaluate(
            model=HarnessModel(Scorer(subject, batch)), tasks=names, num_fewshot=shots, limit=limit,
            task_manager=manager, log_samples=False, bootstrap_iters=1000,
        )  # fmt: skip
    except OSError as error:
        raise UserError(
            f"its data cannot be had: {' '.join(str(error).split())[:300]}", where=f"--tasks {','.join(names)}",
            fix="Go online once, or give local task files with --task-dir.",
        ) from None  # fmt: skip
    except ValueError as error:
        if not any(word in str(error) for word in ("unsafe", "untrusted")):
            raise
        raise UserError(
            "a task would run code that the model writes, which this command does not do", where="--tasks",
            fix="Export the run (python -m training.export) and use lm_eval itself, in a sandbox.",
        ) from None  # fmt: skip
    return {key: report[key] for key in KEPT if report.get(key)}
