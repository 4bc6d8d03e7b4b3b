"""Composer drives the loader: a run stopped at any checkpoint and started again sees the batches it would have seen."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from test_loader import BATCH, STEPS, data, loader  # noqa: F401 - data is a fixture

from tests.training.loader_ranks import run_ranks


def _train(data: Path, run: Path, stop: int, load: str | None = None, workers: int = 0) -> dict[str, Any]:  # noqa: F811
    import torch
    from composer import Callback, ComposerModel, Trainer
    from composer.core import State
    from composer.loggers import Logger

    warnings.simplefilter("ignore")

    class Bigram(ComposerModel):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table = torch.nn.Sequential(torch.nn.Embedding(1200, 8), torch.nn.Linear(8, 1200))

        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.table(batch["input_ids"])

        def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(outputs.flatten(0, 1), batch["labels"].flatten())

    class Record(Callback):
        def __init__(self) -> None:
            self.seen: list[tuple[int, list[int], float]] = []

        def batch_end(self, state: State, logger: Logger) -> None:
            ids = state.batch["sample_ids"].tolist()
            self.seen.append((int(state.timestamp.batch), ids, float(state.loss)))

    record = Record()
    made = loader(data, num_workers=workers)
    model = Bigram()
    trainer = Trainer(
        model=model,
        train_dataloader=made,
        optimizers=torch.optim.AdamW(model.parameters(), lr=0.01),
        max_duration=f"{stop}ba",
        callbacks=[record],
        save_folder=str(run),
        save_interval="1ba",
        save_filename="ba{batch}.pt",
        save_latest_filename=None,
        load_path=load,
        progress_bar=False,
        device="cpu",
    )
    trainer.fit()
    time = trainer.state.timestamp
    trainer.close()
    return {"seen": record.seen, "epoch": int(time.epoch), "batch": int(time.batch), "tokens": int(time.token)}


def test_composer_resumes_exactly(data: Path, tmp_path: Path) -> None:  # noqa: F811
    (whole,) = run_ranks(_train, data=data, run=tmp_path / "whole", stop=STEPS, workers=2)
    assert [step for step, _, _ in whole["seen"]] == list(range(1, STEPS + 1))
    assert whole["epoch"] == 1 and whole["tokens"] == STEPS * BATCH * 15
    for start in (6, 13):  # an epoch's end, and inside a later epoch
        checkpoint = str(tmp_path / "whole" / f"ba{start}.pt")
        (rest,) = run_ranks(_train, data=data, run=tmp_path / str(start), stop=STEPS, load=checkpoint, workers=2)
        assert rest["seen"] == whole["seen"][start:]
        assert {**rest, "seen": None} == {**whole, "seen": None}
    ranks = run_ranks(_train, 2, data=data, run=tmp_path / "two", stop=STEPS, load=str(tmp_path / "whole" / "ba9.pt"))
    steps = zip(*(rank["seen"] for rank in ranks), strict=True)
    assert [sorted(a[1] + b[1]) for a, b in steps] == [sorted(ids) for _, ids, _ in whole["seen"][9:]]
