"""From a run's weights to a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from corpus.base.files import write_json
from corpus.records.manifest import Manifest
from training.hf.config import CONFIG_FILE, hf_config
from training.hf.history import History, history_of
from training.hf.model_card import model_card
from training.hf.output import new_folder
from training.hf.source import open_source
from training.hf.tokenizer import check_tokenizer, marks_of, tokenizer_files
from training.hf.weights import WEIGHTS_FILE, to_hf
from training.model.saved import save_tensors
from training.model.shapes import ModelConfig


def export_hf(
    state_dict: Mapping[str, Tensor],
    cfg: ModelConfig,
    out_dir: Path,
    *,
    tokenizer_json: Path | None = None,
    manifest: Manifest | None = None,
    history: History | None = None,
) -> None:
    """Write `out_dir`, complete or not at all, so that AutoModelForCausalLM loads it without remote code.

    `state_dict` is MobileLM's; `manifest` (of the phase it was trained in last) gives the boundary ids and the context
    length, `history` what the card says of the training.
    Raises UserError when `out_dir` exists, no stock class fits, or the tokenizer has ids the model has not.
    """
    marks = marks_of(manifest) if manifest else None
    context = manifest.seq_len if manifest else cfg.max_positions
    config = hf_config(cfg, context=context)
    generation: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}
    if marks:
        config |= {"bos_token_id": marks.bos, "eos_token_id": marks.eos}
        generation = {"bos_token_id": marks.bos, "eos_token_id": marks.stops}
    config["torch_dtype"] = str(state_dict["embed_tokens.weight"].dtype).removeprefix("torch.")
    files: dict[str, dict[str, Any]] = {CONFIG_FILE: config, "generation_config.json": generation}
    if tokenizer_json:
        of_tokenizer, pad = tokenizer_files(tokenizer_json, cfg, marks, context)
        files |= of_tokenizer
        if pad is not None:
            # Not in config.json: the embedding of a padding id there is frozen, and this one may mean something.
            generation["pad_token_id"] = pad
    with new_folder(out_dir) as folder:
        for name, content in files.items():
            write_json(folder / name, content)
        card = model_card(cfg, context=context, history=history)
        (folder / "README.md").write_text(card, encoding="utf-8")
        save_tensors(to_hf(state_dict, cfg), folder / WEIGHTS_FILE)


def export_run(path: Path, out_dir: Path) -> None:
    """Export a run's newest checkpoint, or the one that `path` is; raises UserError when it is neither."""
    source = open_source(path)
    check_tokenizer(source.tokenizer_json, source.manifest)
    export_hf(
        source.weights(),
        source.model,
        out_dir,
        tokenizer_json=source.tokenizer_json,
        manifest=source.manifest,
        history=history_of(source),
    )
