"""The README of an exported model: what it is, how it was trained, on what, and under which licences that came."""

from __future__ import annotations

from training.hf.config import CLASSES, model_type
from training.hf.history import History, PhaseHistory
from training.model.shapes import ModelConfig, parameter_count

BOUNDARIES = {"bos": "a BOS token before it", "eos": "an EOS token after it", "both": "BOS before and EOS after it"}


def model_card(cfg: ModelConfig, *, context: int, history: History | None = None) -> str:
    """Markdown with front matter; `context` is the longest sequence trained on, in tokens."""
    title = f"{cfg.name}, trained on {history.last.recipe.name}" if history else cfg.name
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
    lines += ['tokenizer = AutoTokenizer.from_pretrained("PATH")']
    lines += ['model.generate(**tokenizer("Question:", return_tensors="pt"))', "```"]
    if history:
        lines += _training(history)
        for phase in history.phases:
            lines += _data(phase)
        lines += ["", "No licence is stated for the weights: choose one that the terms of these sources allow."]
        lines += _teachers(history)
    return "\n".join(lines) + "\n"


def _training(history: History) -> list[str]:
    """What was done, phase by phase."""
    before = f"the weights of `{history.loaded}`, whose own training is not listed here" if history.loaded else ""
    lines = [
        "",
        "## Training",
        "",
        f"Checkpoint `{history.checkpoint}` of run `{history.run}`, begun from {before or 'random weights'}."
        f" {sum(phase.tokens for phase in history.phases):,} tokens in all.",
        "",
        "| phase | steps | tokens | global batch | length | learning rate | seed | teacher | loss |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- | ---: |",
    ]
    for phase in history.phases:
        training = phase.recipe.training
        schedule = f"{training.optimizer.lr:g}, {training.schedule.kind}, {training.schedule.warmup_steps:,} warm-up"
        steps = f"{phase.steps:,}" if phase.steps == phase.planned else f"{phase.steps:,} of {phase.planned:,}"
        loss = f"{phase.loss:.4f}" if isinstance(phase.loss, float) else phase.loss or ""
        lines.append(
            _row(
                phase.recipe.name, steps, f"{phase.tokens:,}", f"{phase.global_batch:,}", f"{phase.manifest.seq_len:,}",
                schedule, str(phase.seed), phase.teacher or "none", loss,
            )
        )  # fmt: skip
    if history.settings:
        lines += ["", f"Settings beside the recipes': {', '.join(f'`{each}`' for each in history.settings)}."]
    for change in history.changes:
        lines += ["", f"Changed under way: {change}."]
    for phase in history.phases:
        if phase.steps < phase.planned:
            lines += ["", f"`{phase.recipe.name}` was stopped before its end."]
        if phase.skipped:
            lines += ["", f"`{phase.recipe.name}`: {phase.skipped:,} steps left the weights alone for a bad loss."]
        for change in phase.changes:
            lines += ["", f"`{phase.recipe.name}`: the data changed, which the user allowed: {change}."]
    return lines


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


def _data(phase: PhaseHistory) -> list[str]:
    manifest = phase.manifest
    lines = [
        "",
        f"## Data of {phase.recipe.name}",
        "",
        f"Phase `{manifest.phase}` of `{manifest.family}`. Each document had {BOUNDARIES[manifest.boundary]}."
        f" Attention {'stayed inside documents' if phase.recipe.document_mask else 'crossed document boundaries'}.",
        f"Tokenizer `{manifest.tokenizer.name}` (tokenizer.json sha256 `{manifest.tokenizer.sha256}`).",
        f"Manifest fingerprint `{manifest.fingerprint}`.",
        "",
        "| source | revision | licence | redistributable | tokens drawn | share | epochs |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
    ]
    total = sum(each.tokens for each in phase.drawn.values())
    for name, drawn in phase.drawn.items():
        # A source that the user let go under way is in the draws, but no longer in the manifest.
        entry, about = manifest.sources.get(name), "" if drawn.exact else "about "
        cells = [name, *((entry.revision, entry.licence) if entry else ("", ""))]
        cells += [("yes" if entry.redistributable else "no") if entry else ""]
        cells += [f"{about}{drawn.tokens:,.0f}", f"{drawn.tokens / total:.2%}"]
        lines.append(_row(*cells, f"{drawn.samples / entry.samples:.2f}" if entry else ""))
    return lines


def _teachers(history: History) -> list[str]:
    if not history.teachers:
        return []
    names = " and ".join(f"`{name}`" for name in history.teachers)
    return [
        "",
        "## Teacher",
        "",
        f"Distilled from {names}. A teacher's licence can bind models trained on its outputs"
        " (Llama licences ask for a naming prefix and a notice): read it before publishing these weights.",
    ]


def _row(*cells: str) -> str:
    # Names and licences come from recipes and catalogues that anyone may write; a pipe would break the table.
    return "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"
