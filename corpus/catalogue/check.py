"""Whether a catalogue entry can be read now."""

from __future__ import annotations

import tempfile
from pathlib import Path

from corpus.acquire import AcquireConfig, CheckResult, check
from corpus.catalogue.models import Source
from corpus.documents.joins import input_origins


def check_source(source: Source, base_dir: Path, mirror: Path | None = None) -> CheckResult:
    """Whether a source and whatever is joined into it can be reached, with file counts and bytes; downloads nothing."""
    with tempfile.TemporaryDirectory() as cache:
        config = AcquireConfig(cache=Path(cache), mirror=mirror, base_dir=base_dir)
        results = [check(source, config)]
        of = [""]
        for name, (origin, file_format) in input_origins(source).items():
            part = {"title": f"{source.title}: {name}", "origin": origin, "format": file_format, "gate": None}
            results.append(check(source.model_copy(update=part), config))
            of.append(f"{name}, which is joined in: ")
    bad = next((n for n, result in enumerate(results) if result.problem), None)
    return CheckResult(
        reachable=all(result.reachable for result in results),
        gated=any(result.gated for result in results),
        files=sum(result.files for result in results),
        bytes=sum(result.bytes for result in results),
        problem=None if bad is None else f"{of[bad]}{results[bad].problem}",
        fix=None if bad is None else results[bad].fix,
        listing=results[0].listing if len(results) == 1 else None,
    )
