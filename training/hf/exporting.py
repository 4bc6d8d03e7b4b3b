"""From a run's weights to a Hugging Face folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from corpus.base.files import read_json, write_json
from corpus.records.manifest import Manifest, load_manifest
from training.hf.config import CONFIG_FILE, hf_config
from training.hf.model_card import model_card
from training.hf.output import new_folder
from training.hf.tokenizer import tokenizer_files
from training.hf.weights import WEIGHTS_FILE, to_hf
from training.model.shapes import ModelConfig
from training.run.folder import load_weights


def export_hf(
    state_dict: Mapping[str, Tensor],
    cfg: ModelConfig,
    out_dir: Path,
    *,
    tokenizer_json: Path | None = None,
    manifest: Manifest | None = None,
    teacher: str | None = None,
) -> None:
    """Write `out_dir`, complete or not at all, so that AutoModelForCausalLM loads it without remote code.

    `state_dict` is MobileLM's. `tokenizer_json` is copied as it is; `manifest` (of the last phase trained) gives the
    boundary ids, the context length and the card's data table; `teacher` is named in the card.
    Raises UserError when `out_dir` exists, no stock class fits, or the tokenizer has ids the model has not.
    """
    bos_id = manifest.tokenizer.bos_id if manifest else None
    eos_id = manifest.tokenizer.eos_id if manifest else None
    context = manifest.seq_len if manifest else cfg.max_positions
    config = hf_config(cfg, bos_id=bos_id, eos_id=eos_id, context=context)
    config["torch_dtype"] = str(state_dict["embed_tokens.weight"].dtype).removeprefix("torch.")
    files = tokenizer_files(tokenizer_json, cfg, bos_id, eos_id, context) if tokenizer_json else {}
    with new_folder(out_dir) as folder:
        write_json(folder / CONFIG_FILE, config)
        write_json(folder / "generation_config.json", {"bos_token_id": bos_id, "eos_token_id": eos_id})
        if tokenizer_json:
            shutil.copyfile(tokenizer_json, folder / "tokenizer.json")
        for name, content in files.items():
            write_json(folder / name, content)
        card = model_card(cfg, context=context, manifest=manifest, teacher=teacher)
        (folder / "README.md").write_text(card, encoding="utf-8")
        save_file(to_hf(state_dict, cfg), str(folder / WEIGHTS_FILE), metadata={"format": "pt"})


def export_run(run: Path, out_dir: Path) -> None:
    """Export the newest weights of a run folder; raises UserError when it is none."""
    record, manifest = read_json(run / "run.json"), load_manifest(run / "manifest.json")
    state_dict, cfg = load_weights(run)
    tokenizer_json = run / "tokenizer" / "tokenizer.json"
    export_hf(
        state_dict, cfg, out_dir, tokenizer_json=tokenizer_json, manifest=manifest, teacher=_teacher(record, manifest)
    )


def _teacher(record: dict[str, Any], manifest: Manifest) -> str | None:
    """The teacher of the phase that `manifest` belongs to, from the recipes in run.json."""
    for phase in record.get("phases", []):
        if phase["recipe"]["name"] == manifest.recipe and phase["recipe"]["training"]["distillation"]:
            return str(phase["recipe"]["training"]["distillation"]["teacher"])
    return None
