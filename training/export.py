"""Write a trained model as a Hugging Face folder: `python -m training.export RUN --to OUT`."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.base.errors import UserError, command
from corpus.base.files import read_json
from corpus.records.manifest import Manifest, load_manifest
from training.model.shapes import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor


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
    from safetensors.torch import save_file

    from training.hf.config import CONFIG_FILE, WEIGHTS_FILE, hf_config, new_folder, to_hf, write_json
    from training.hf.model_card import model_card

    bos_id = manifest.tokenizer.bos_id if manifest else None
    eos_id = manifest.tokenizer.eos_id if manifest else None
    context = manifest.seq_len if manifest else cfg.max_positions
    config = hf_config(cfg, bos_id=bos_id, eos_id=eos_id, context=context)
    config["torch_dtype"] = str(state_dict["embed_tokens.weight"].dtype).removeprefix("torch.")
    tokenizer_files = _tokenizer_files(tokenizer_json, cfg, bos_id, eos_id, context) if tokenizer_json else {}
    with new_folder(out_dir) as folder:
        write_json(folder / CONFIG_FILE, config)
        write_json(folder / "generation_config.json", {"bos_token_id": bos_id, "eos_token_id": eos_id})
        if tokenizer_json:
            shutil.copyfile(tokenizer_json, folder / "tokenizer.json")
        for name, content in tokenizer_files.items():
            write_json(folder / name, content)
        card = model_card(cfg, context=context, manifest=manifest, teacher=teacher)
        (folder / "README.md").write_text(card, encoding="utf-8")
        save_file(to_hf(state_dict, cfg), str(folder / WEIGHTS_FILE), metadata={"format": "pt"})


def _tokenizer_files(
    tokenizer_json: Path, cfg: ModelConfig, bos_id: int | None, eos_id: int | None, context: int
) -> dict[str, dict[str, Any]]:
    """tokenizer_config.json and special_tokens_map.json for a tokenizer.json."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_json))
    except Exception as error:  # the library raises bare Exception for absent and broken files alike
        raise UserError(f"is not a readable tokenizer.json: {error}", where=str(tokenizer_json)) from None
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= cfg.vocab_size:
        what = f"has ids up to {largest}, more than the {cfg.vocab_size} of size {cfg.name}"
        raise UserError(what, where=str(tokenizer_json), fix="Export with the tokenizer the model was trained with.")
    ids = {"bos_token": bos_id, "eos_token": eos_id}
    tokens = {key: tokenizer.id_to_token(number) for key, number in ids.items() if number is not None}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        **tokens,
    }
    return {"tokenizer_config.json": config, "special_tokens_map.json": tokens}


def export_run(run: Path, out_dir: Path) -> None:
    """Export the newest weights of a run folder; raises UserError when it is none."""
    record, manifest = read_json(run / "run.json"), load_manifest(run / "manifest.json")
    # Imported here: `--help` should not wait for what reading checkpoints needs.
    from training.run.folder import load_weights

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


def main(argv: list[str] | None = None) -> None:
    """The command `python -m training.export`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export",
        description="Write a run's newest weights as a Hugging Face folder that loads without remote code.",
    )
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--to", type=Path, required=True, metavar="OUT", help="folder to write; must not exist")
    args = parser.parse_args(argv)
    export_run(args.run, args.to)
    print(f"wrote {args.to}")


if __name__ == "__main__":
    with command():
        main()
