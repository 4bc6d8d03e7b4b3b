"""What every benchmark shares: inputs, the machine's description, one table with ratios, JSON."""

from __future__ import annotations

import argparse
import itertools
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


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A benchmark's command line, with the option that all of them have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write JSON here")
    return parser


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
    """Real source code: the modules of this Python and of its installed packages, each once, in random order.

    Should they not suffice, later rounds start each file at a random line, so that no document comes twice.
    """
    rng = random.Random(seed)
    paths = sysconfig.get_paths()
    files = sorted({path for key in ("stdlib", "purelib") for path in Path(paths[key]).rglob("*.py")})
    rng.shuffle(files)
    left = total_bytes
    for again in itertools.count():
        for path in files:
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            if again:
                text = text[text.find("\n", rng.randrange(max(1, len(text) // 2))) + 1 :]
            if text:
                left -= len(text)
                yield text
            if left <= 0:
                return


def prose_documents(total_bytes: int) -> Iterator[str]:
    """English prose: the licences of the installed packages, again and again, each time with another first line."""
    found = {path.read_bytes() for path in Path(sysconfig.get_paths()["purelib"]).rglob("LICENSE*") if path.is_file()}
    left = total_bytes
    for again in itertools.count(1):
        for data in sorted(found):
            text = f"This licence is read for the {again}th time.\n\n{data.decode(errors='ignore')}"
            left -= len(text)
            yield text
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
