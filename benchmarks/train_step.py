"""`python -m benchmarks.train_step --size 950m`: tokens per second and MFU of training steps, plain and fast paths.

On a GPU this is the figure of a run (bf16, the model alone, no loader); on a CPU it measures a scaled-down model, for
relative figures and to keep the script from rotting. Each way starts from the same weights and batches.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.common import show


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="950m")
    parser.add_argument("--seq-len", type=int, help="default: the size's own on a GPU, 128 on a CPU")
    parser.add_argument("--batch", type=int, help="sequences per pass (default: 16 on a GPU, 4 on a CPU)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    parser.add_argument("--out", type=Path, help="write JSON here")
    args = parser.parse_args()

    import torch

    from training.peak import peak_of
    from training.sizes import flops_per_token, get_size, scaled_down

    on_gpu = torch.cuda.is_available()
    cfg = get_size(args.size) if on_gpu else scaled_down(get_size(args.size))
    seq_len = args.seq_len or (cfg.seq_len if on_gpu else 128)
    batch = args.batch or (16 if on_gpu else 4)
    peak = peak_of(torch.device("cuda" if on_gpu else "cpu"))
    ways = [("plain loss", None, False), ("chunked loss", 4096 if on_gpu else 64, False)]
    if args.compile:
        ways.append(("chunked loss, torch.compile", 4096 if on_gpu else 64, True))
    rows: list[tuple[str | float, ...]] = []
    for name, chunk, compiled in ways:
        try:
            rate, losses, memory = _measure(cfg, seq_len, batch, args.steps, chunk, compiled)
        except torch.cuda.OutOfMemoryError:
            rows.append((name, "out of memory", "", "", "", ""))
            continue
        mfu = rate * flops_per_token(cfg, seq_len) / peak.flops
        first = next((row[1] for row in rows if isinstance(row[1], float)), rate)
        assert isinstance(first, float)
        rows.append((name, rate, 100 * mfu, memory, losses[-1], rate / first))
    show(
        f"{cfg.name}{'' if on_gpu else ' scaled down'}: training steps of {batch} x {seq_len} (peak: {peak.note})",
        ("way", "tokens/s", "MFU %", "GB", "last loss", "x first"),
        rows,
        args.out,
    )


def _measure(
    cfg: object, seq_len: int, batch: int, steps: int, chunk: int | None, compiled: bool
) -> tuple[float, list[float], float]:
    """(tokens/s after warm-up, losses, peak memory in GB) of one way."""
    import torch

    from training.model import MobileLM
    from training.optim import decay_groups

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = MobileLM(cfg).to(device)  # type: ignore[arg-type]
    if compiled:
        for block in model.layers:
            block.compile()
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=1e-4, fused=device.type == "cuda")
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, model.cfg.vocab_size, (steps + 3, batch, seq_len + 1), generator=generator)
    losses = []
    begun = 0.0
    for step, rows in enumerate(ids):
        if step == 3:  # compilation and allocator warm-up are over
            _wait(device)
            begun = time.perf_counter()
        rows = rows.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = model.loss(rows[:, :-1], rows[:, 1:], chunk=chunk)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    _wait(device)
    seconds = time.perf_counter() - begun
    memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    return steps * batch * seq_len / seconds, [float(loss) for loss in losses], memory


def _wait(device: object) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
