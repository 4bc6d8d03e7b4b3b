"""Documents -> what a comparison compares them by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from corpus.cleaning.comparisons.droplists import UnitRef
from corpus.cleaning.comparisons.exact import HashWriter
from corpus.cleaning.comparisons.steps import MinhashStep
from corpus.pipeline.tally import Tally
from corpus.pipeline.unit_step import Numbered, UnitStep, unit_work


class Collect(UnitStep):
    """The end of a comparison's own pass: keeps what the step compares documents by, instead of tokenising them."""

    type = "🧹 - COLLECTOR"
    name = "comparison"

    def __init__(self, jobs: Path, tally: Tally, step: int) -> None:
        super().__init__(jobs, tally)
        self.step = step

    def run(self, data: Iterator[Numbered], rank: int = 0, world_size: int = 1) -> None:
        """Consumes the pipeline."""
        plan, unit = self.job(rank)
        folder, spec = plan.comparison_folders[self.step], dict(plan.steps)[self.step]
        with unit_work(self, plan, unit, rank):
            if isinstance(spec, MinhashStep):
                from corpus.cleaning.comparisons.minhash import write_signatures

                refs = plan.compared_units(self.step)
                position = refs.index(UnitRef(plan.source_name, unit.index))
                write_signatures(folder, refs, position, spec, self._texts(data, rank))
            else:
                writer = HashWriter(folder, UnitRef(plan.source_name, unit.index))
                for ordinal, text in self._texts(data, rank):
                    writer.add(ordinal, text)
                writer.close()

    def _texts(self, data: Iterator[Numbered], rank: int) -> Iterator[tuple[int, str]]:
        for entry in data:
            self.tally.text_bytes += len(entry.document.text)
            self.tally.publish(self.jobs.parent / f"progress-{rank}.json")
            yield entry.ordinal, entry.document.text
