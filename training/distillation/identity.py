"""Which teacher it is, and whether it speaks the student's vocabulary; worked out from its files, without torch."""

from __future__ import annotations

import functools
from pathlib import Path

from corpus.base.config import Strict
from corpus.base.errors import UserError
from corpus.base.files import fingerprint, read_json, sha256_file

PROBE = (
    "The quick brown fox doesn't jump over 1234567890 lazy dogs...\n\n\tdef f(x: int) -> str:\n        return repr(x)\n"
    "Zwölf Boxkämpfer jagen Viktor quer über den Sylter Deich. 敏捷的棕色狐狸。 Съешь же ещё этих мягких булок. "
    "مرحبا بالعالم नमस्ते 😀👩‍👩‍👧 \\frac{a}{b} $\\alpha \\leq \\beta$ https://example.org/?q=1&r=2"
)
"""Text that two tokenizers must encode alike to count as one."""


class TeacherIdentity(Strict):
    """What a teacher's outputs depend on."""

    name: str
    """Hub name, or the name of a local folder without its path."""
    config_sha256: str
    """Of config.json."""
    weights_sha256: str
    """Over the names and hashes of the .safetensors files."""


def short_name(name: str) -> str:
    """A hub name as it is; of a local folder its last part, which means the same on every machine."""
    return Path(name).resolve().name if Path(name).exists() else name


def teacher_folder(name: str, *, weights: bool) -> Path:
    """The folder of a hub name or local path, fetched from the hub if need be, with or without weights.

    Raises UserError when there is no such model, or it is gated or out of reach.
    """
    where = f"teacher {name}"
    local = Path(name)
    if local.is_dir():
        if not (local / "config.json").is_file() or not any(local.glob("*.safetensors")):
            raise UserError("holds no config.json and .safetensors weights", where=where)
        return local
    from huggingface_hub import snapshot_download

    patterns = ["config.json", "generation_config.json", "tokenizer.json"]
    try:
        # Only weights in the top folder: some repositories hold the same ones again in another format.
        files = [*patterns, "model*.safetensors", "model*.json"] if weights else patterns
        return Path(snapshot_download(name, allow_patterns=files))
    except Exception as error:  # the hub client's errors share no base class that is not everyone's
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"is neither a local folder nor within reach on the hub: {reason}", where=where,
            fix="Name another with --set distillation.teacher=PATH, or --set distillation=null to train without one.",
        ) from None  # fmt: skip


@functools.lru_cache(maxsize=4)
def identify(name: str, folder: Path) -> TeacherIdentity:
    """Hash a teacher's files; reads all of its weights once."""
    weights = {path.name: sha256_file(path) for path in sorted(folder.glob("*.safetensors"))}
    return TeacherIdentity(
        name=short_name(name), config_sha256=sha256_file(folder / "config.json"), weights_sha256=fingerprint(weights)
    )


def check_vocabulary(name: str, folder: Path, vocab_size: int, tokenizer: Path | None) -> None:
    """Raise UserError unless the teacher has `vocab_size` ids that mean what the student's `tokenizer` (a
    tokenizer.json) says; where one of the two has no tokenizer.json, the sizes must do."""
    where = f"teacher {name}"
    fix = "A teacher must share the student's tokenizer; name another with --set distillation.teacher=PATH."
    config = read_json(folder / "config.json")
    size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    if size != vocab_size:
        raise UserError(f"has {size} ids, the student has {vocab_size}", where=where, fix=fix)
    theirs = folder / "tokenizer.json"
    if tokenizer is None or not tokenizer.is_file() or not theirs.is_file():
        return
    from tokenizers import Tokenizer

    ours, other = (
        Tokenizer.from_file(str(path)).encode(PROBE, add_special_tokens=False) for path in (tokenizer, theirs)
    )
    if ours.ids != other.ids:
        first = next((i for i, (a, b) in enumerate(zip(ours.ids, other.ids, strict=False)) if a != b), None)
        pieces = "in length" if first is None else f"at {ours.tokens[first]!r} and {other.tokens[first]!r}"
        raise UserError(f"its tokenizer encodes text differently: first {pieces}", where=where, fix=fix)
