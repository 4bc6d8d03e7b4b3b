"""The README of an exported model: what it is, what it was trained on, and under which licences that came."""

from __future__ import annotations

from corpus.records.manifest import Manifest
from training.hf.config import CLASSES, model_type
from training.model.shapes import ModelConfig, parameter_count

BOUNDARIES = {"bos": "a BOS token before it", "eos": "an EOS token after it", "both": "BOS before and EOS after it"}


def model_card(cfg: ModelConfig, *, context: int, manifest: Manifest | None = None, teacher: str | None = None) -> str:
    """Markdown with front matter. `manifest` is of the last phase trained, `teacher` the one it was distilled from."""
    title = f"{cfg.name}, trained on {manifest.recipe}" if manifest else cfg.name
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [mobilellm]",
        "---",
        "",
        f"# {title}",
        "",
        "| | |",
        "| --- | --- |",
        f"| Size | {cfg.name}: {cfg.layers} layers, width {cfg.dim}, {cfg.heads} heads ({cfg.kv_heads} key/value) |",
        f"| Parameters | {parameter_count(cfg):,} (embeddings tied) |",
        f"| Vocabulary | {cfg.vocab_size:,} |",
        f"| Context trained on | {context:,} tokens |",
        f"| RoPE base | {cfg.rope_theta:,.0f} |",
        f"| transformers class | `{CLASSES[model_type(cfg)]}`, no remote code |",
    ]
    lines += _notes(cfg)
    lines += ["", "```python", "from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    lines += ['model = AutoModelForCausalLM.from_pretrained("PATH")']
    lines += ['tokenizer = AutoTokenizer.from_pretrained("PATH")', "```"]
    if manifest:
        lines += _data(manifest)
    if teacher:
        lines += [
            "",
            "## Teacher",
            "",
            f"The last phase was distilled from `{teacher}`. A teacher's licence can bind models trained on its outputs"
            " (Llama licences ask for a naming prefix and a notice): read it before publishing these weights.",
        ]
    return "\n".join(lines) + "\n"


def _notes(cfg: ModelConfig) -> list[str]:
    notes = []
    if cfg.layer_repeat > 1:
        notes.append(
            f"Every block is shared by {cfg.layer_repeat} layers in a row. The stock class cannot share, so the"
            f" checkpoint holds {cfg.layers * cfg.layer_repeat} layers, {cfg.layer_repeat} equal copies of each block:"
            " the same function, more bytes. Training it further without sharing lets the copies drift apart."
        )
    if cfg.sliding_window is not None:
        assert cfg.global_layers is not None
        layers = ", ".join(str(layer) for layer in cfg.global_layers)
        notes.append(
            f"Layers {layers} attend globally, the others to the last {cfg.sliding_window} tokens. Programs that know"
            " this class only by its published models may drop the windows; llama.cpp's converter does, so do not"
            " convert this model with it."
        )
    return ["", *notes] if notes else []


def _data(manifest: Manifest) -> list[str]:
    lines = [
        "",
        "## Data",
        "",
        f"Phase `{manifest.phase}` of `{manifest.family}`: {manifest.tokens:,} tokens in {manifest.steps:,} steps of"
        f" {manifest.global_batch:,} sequences of {manifest.seq_len:,}, seed {manifest.seed}."
        f" Each document had {BOUNDARIES[manifest.boundary]}."
        f" Attention {'stayed inside documents' if manifest.document_mask else 'crossed document boundaries'}.",
        f"Tokenizer `{manifest.tokenizer.name}` (tokenizer.json sha256 `{manifest.tokenizer.sha256}`).",
        f"Manifest fingerprint `{manifest.fingerprint}`.",
        "",
        "| source | revision | licence | redistributable | tokens drawn | share | epochs |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
    ]
    for name, entry in manifest.sources.items():
        # Licence names come from catalogues anyone may write; a pipe would break the table.
        cells = [name, entry.revision, entry.licence, "yes" if entry.redistributable else "no"]
        cells += [f"{entry.tokens_drawn:,}", f"{entry.weight:.2%}", f"{entry.epochs:.2f}"]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    lines += ["", "No licence is stated for the weights: choose one that the terms of these sources allow."]
    return lines
