"""What may change when a run goes on: the number of processes may, the data may not.

No torch here, so a launcher can refuse before any process group starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from corpus.base.errors import UserError

ALLOW_FLAG = "--allow-changed-data"


def _legal(global_batch: int, canonical_nodes: int, nodes: int, ranks_per_node: int) -> bool:
    if global_batch % (nodes * ranks_per_node) or global_batch % canonical_nodes:
        return False
    # Nodes that neither divide the canonical nodes nor are divided by them read the order of a canonical-nodes run,
    # re-dealt to them; that run's own ranks must share the batch evenly too.
    related = canonical_nodes % nodes == 0 or nodes % canonical_nodes == 0
    return related or global_batch % (canonical_nodes * ranks_per_node) == 0


def legal_world_sizes(global_batch: int, canonical_nodes: int, gpus_per_node: int) -> list[int]:
    """Numbers of processes that can run the recipe: any on one node up to `gpus_per_node`, else whole nodes."""
    single = [r for r in range(1, gpus_per_node + 1) if _legal(global_batch, canonical_nodes, 1, r)]
    many = [
        nodes * gpus_per_node
        for nodes in range(2, global_batch // gpus_per_node + 1)
        if _legal(global_batch, canonical_nodes, nodes, gpus_per_node)
    ]
    return single + many


def check_world(global_batch: int, canonical_nodes: int, nodes: int, ranks_per_node: int) -> int:
    """Samples per device and step; UserError naming world sizes that fit when this one does not."""
    if global_batch % canonical_nodes:
        raise UserError(
            f"global_batch {global_batch} is not a multiple of canonical_nodes {canonical_nodes}, so virtual epochs "
            "cannot be dealt out without repeating samples",
            where="training.canonical_nodes",
            fix=f"Use a divisor of {global_batch}.",
        )
    world = nodes * ranks_per_node
    if not _legal(global_batch, canonical_nodes, nodes, ranks_per_node):
        legal = legal_world_sizes(global_batch, canonical_nodes, ranks_per_node)
        near = sorted(sorted(legal, key=lambda size: abs(size - world))[:4])
        best = max((size for size in legal if size <= world), default=1)
        per_node = best if best <= ranks_per_node else ranks_per_node
        spread = "" if best == per_node else f" on {best // per_node} nodes"
        raise UserError(
            f"{world} processes ({nodes} x {ranks_per_node}) cannot share a global batch of {global_batch} samples "
            f"evenly; world sizes that can, near it: {', '.join(map(str, near))}",
            fix=f"Start {best} processes{spread}: composer -n {per_node} training/train.py ...",
        )
    return global_batch // world


def fingerprint_fields(
    *,
    manifest: str,
    mixture: Sequence[tuple[str, float]],
    seed: int,
    seq_len: int,
    global_batch: int,
    canonical_nodes: int,
    total_steps: int,
    virtual_epoch_samples: int,
) -> dict[str, Any]:
    """Everything that decides which samples a step sees, as a checkpoint keeps it; plain JSON types.

    `manifest` is the manifest's fingerprint, `mixture` the (source, weight) pairs in the order of the dataset.
    """
    return {
        "manifest": manifest,
        "mixture": [[name, weight] for name, weight in mixture],
        "seed": seed,
        "seq_len": seq_len,
        "global_batch": global_batch,
        "canonical_nodes": canonical_nodes,
        "total_steps": total_steps,
        "virtual_epoch_samples": virtual_epoch_samples,
    }


def check_resume(saved: Mapping[str, Any], current: Mapping[str, Any], *, allow: bool = False) -> dict[str, list[Any]]:
    """Compare a checkpoint's fields with this run's; returns what changed as {field: [saved, current]}.

    Raises UserError naming each changed field, unless `allow` (the user gave --allow-changed-data).
    """
    fields = [*current, *(field for field in saved if field not in current)]
    changed = {f: [saved.get(f), current.get(f)] for f in fields if saved.get(f) != current.get(f)}
    if changed and not allow:
        raise UserError(
            "the checkpoint was made on other data: "
            + "; ".join(
                f"{field} was {short_value(was)}, is {short_value(now)}" for field, (was, now) in changed.items()
            ),
            fix=f"Restore the recipe and the build, start another run name, or go on regardless with {ALLOW_FLAG}.",
        )
    return changed


def short_value(value: Any) -> str:
    """A value for a message, its middle left out where it is long."""
    text = str(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-16:]}"
