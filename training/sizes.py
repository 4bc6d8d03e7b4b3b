"""The model sizes of the family: one table with exact parameter counts. `python -m training.sizes` prints it.

Nothing here imports torch, so that commands which only need the arithmetic answer at once.
"""

from __future__ import annotations

import argparse
import json

from corpus.base.errors import command
from training.model.shapes import CURRICULA, SIZES, embedding_parameters, flops_per_token, parameter_count


def _rows() -> list[dict[str, object]]:
    return [
        {
            "size": cfg.name,
            "family": cfg.family,
            "layers": cfg.layers,
            "layer_repeat": cfg.layer_repeat,
            "heads": cfg.heads,
            "kv_heads": cfg.kv_heads,
            "dim": cfg.dim,
            "ffn": cfg.ffn,
            "vocab_size": cfg.vocab_size,
            "parameters": parameter_count(cfg),
            "embedding_share": embedding_parameters(cfg) / parameter_count(cfg),
            "seq_len": cfg.seq_len,
            "flops_per_token": flops_per_token(cfg, cfg.seq_len),
            "curriculum": list(CURRICULA[cfg.family]),
        }
        for cfg in SIZES.values()
    ]


def _print_table(rows: list[dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="Sizes of the MobileLLM family", caption="FLOPs: training, per token, at the sequence length shown"
    )
    for heading in ("size", "layers", "heads/kv", "dim", "ffn", "vocab", "parameters", "embed", "seq", "GFLOP/token"):
        table.add_column(heading, justify="left" if heading == "size" else "right", no_wrap=True)
    for row in rows:
        repeat = f" x{row['layer_repeat']}" if row["layer_repeat"] != 1 else ""
        table.add_row(
            f"{row['size']}", f"{row['layers']}{repeat}", f"{row['heads']}/{row['kv_heads']}", f"{row['dim']}",
            f"{row['ffn']}", f"{row['vocab_size']:,}", f"{row['parameters']:,}", f"{row['embedding_share']:.1%}",
            f"{row['seq_len']}", f"{float(str(row['flops_per_token'])) / 1e9:.3f}",
        )  # fmt: skip
    # Piped output has no width of its own, and a table cut at 80 columns helps nobody.
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


def main(argv: list[str] | None = None) -> None:
    """The command `python -m training.sizes`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sizes", description="List the model sizes, counted exactly."
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    rows = _rows()
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows)


if __name__ == "__main__":
    with command():
        main()
