"""What every benchmark shares: inputs, the machine's description, one table with ratios, JSON."""

from __future__ import annotations

import json
import os
import platform
import random
import sysconfig
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "mosaicml", "mosaicml-streaming", "datatrove", "tokenizers", "gigatoken", "numpy")


def machine() -> dict[str, Any]:
    """Processor, cores, memory and versions: what a figure is worth nothing without."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e6, 1),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def code_documents(total_bytes: int, seed: int = 0) -> Iterator[str]:
    """Real source code (this Python's standard library), again and again with its lines cut at other places.

    Later rounds start each file at a random line, so that no cache sees the same document twice.
    """
    rng = random.Random(seed)
    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for path in library.rglob("*.py") if "site-packages" not in path.parts)
    texts = []
    for path in files:
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue
    left = total_bytes
    while left > 0:
        for text in texts:
            start = text.find("\n", rng.randrange(max(1, len(text) // 2))) + 1
            piece = text[start : start + 20_000]
            if not piece:
                continue
            left -= len(piece)
            yield piece
            if left <= 0:
                return


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], out: Path | None, **facts: Any) -> None:
    """Print one table and, with ``out``, write the same as JSON beside the machine's description."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(f"{cell:,.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    console = Console(width=140)
    console.print(table)
    described = machine()
    console.print(
        f"{described['processor']}, {described['cores']} cores, load {described['load']:.1f}, "
        f"Python {described['python']}, " + ", ".join(f"{k} {v}" for k, v in described["versions"].items()),
        highlight=False,
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        data = {
            "title": title,
            "machine": described,
            **facts,
            "rows": [dict(zip(columns, r, strict=True)) for r in rows],
        }
        out.write_text(json.dumps(data, indent=2) + "\n")
