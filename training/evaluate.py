"""Evaluate a run: `python -m training.evaluate RUN [--wikitext PATH] [--held-out N] [--tasks A,B]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.base.errors import UserError, command
from corpus.base.files import write_json

if TYPE_CHECKING:
    from training.evaluation.subject import Subject

HELD_OUT_SAMPLES = 256
"""Samples per source when --held-out gives no number."""

WINDOW = 2048
"""Ids per window of the published wikitext-2 protocol."""


def main(argv: list[str] | None = None) -> None:
    """The command `python -m training.evaluate`."""
    args = _arguments(argv)
    for flag in ("held_out", "batch", "limit"):
        if getattr(args, flag) is not None and getattr(args, flag) < 1:
            raise UserError("must be at least 1", where=f"--{flag.replace('_', '-')}")
    names = [name for name in (args.tasks or "").split(",") if name]
    if args.task_dir and not names:
        raise UserError("needs --tasks: which of its tasks", where="--task-dir")
    if names:
        _need_harness()
    import torch

    from training.evaluation.subject import load_subject

    subject = load_subject(args.run, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    results: dict[str, dict[str, Any]] = {}
    if args.wikitext:
        from training.evaluation.perplexity import wikitext

        results["wikitext"] = _keep(subject, "wikitext", wikitext(subject, args.wikitext, args.window, args.batch))
    if args.held_out or not (args.wikitext or names):
        from training.evaluation.heldout import held_out

        measured = held_out(subject, args.data, args.held_out or HELD_OUT_SAMPLES, args.batch)
        results["held_out"] = _keep(subject, "held-out", measured)
    if names:
        from training.evaluation.harness import run_tasks

        measured = run_tasks(subject, names, args.task_dir, args.batch, args.num_fewshot, args.limit)
        results["tasks"] = _keep(subject, "tasks", {**measured, "limit": args.limit})
    if args.json:
        print(json.dumps({**subject.facts(), **results}, indent=2))
    else:
        from training.evaluation.tables import show

        show(subject, results)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description="Evaluate the newest checkpoint of a run, or one checkpoint. Results are also kept in RUN/eval. "
        "Without any of --wikitext, --held-out and --tasks, the held-out loss of each source is measured.",
    )
    parser.add_argument("run", type=Path, help="the run's folder, or one checkpoint in it")
    parser.add_argument("--wikitext", type=Path, metavar="PATH",
                        help="perplexity on wikitext-2-raw-v1's test split: .parquet, .jsonl or raw text")  # fmt: skip
    parser.add_argument("--window", type=int, default=WINDOW, metavar="IDS",
                        help="window of --wikitext (default: 2048, as published)")  # fmt: skip
    parser.add_argument("--held-out", type=int, nargs="?", const=HELD_OUT_SAMPLES, metavar="N",
                        help="loss per source on N samples each that the run never draws (default: 256)")  # fmt: skip
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the builds (default: data)")
    parser.add_argument("--tasks", metavar="A,B", help="tasks of lm-eval-harness, e.g. hellaswag,piqa,arc_easy")
    parser.add_argument("--task-dir", type=Path, metavar="DIR", help="folder with task files of your own")
    parser.add_argument("--num-fewshot", type=int, metavar="N", help="examples before each question (default: task's)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N documents of each task")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="sequences per forward pass (default: 8)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args(argv)


def _need_harness() -> None:
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"lm-eval-harness is not installed ({error})", where="--tasks", fix="Run: pip install -e '.[eval]'"
        ) from None


def _keep(subject: Subject, kind: str, result: dict[str, Any]) -> dict[str, Any]:
    """Write one kind of result into the run; the same kind of the same checkpoint is replaced."""
    write_json(subject.root / "eval" / f"{kind}-{subject.checkpoint}.json", {**subject.facts(), kind: result})
    return result


if __name__ == "__main__":
    with command():
        main()
