"""From a phase's distillation settings to its teacher: checked before the run starts, made when the phase does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training.distillation.cache import CacheReader, TeacherRecord, cached_teacher, find_caches
from training.distillation.identity import check_vocabulary, teacher_folder

if TYPE_CHECKING:
    import torch

    from training.distillation.loss import Distiller
    from training.run.phases import Phase


def check_teacher(phase: Phase) -> None:
    """Raise UserError when the phase's teacher, or the cache of it, is absent or does not fit; without torch."""
    settings = phase.recipe.training.distillation
    if settings is None:
        return
    if settings.cache:
        _caches(phase)
    else:
        folder = teacher_folder(settings.teacher, weights=False)
        check_vocabulary(settings.teacher, folder, phase.model.vocab_size, _tokenizer(phase))


def build_distiller(phase: Phase, device: torch.device, *, sharded: bool) -> Distiller | None:
    """The phase's teacher on `device` (or on disk) and its objective; None for a phase without distillation."""
    from training.distillation.loss import Distiller, Objective
    from training.distillation.teacher import OnlineTeacher

    settings = phase.recipe.training.distillation
    if settings is None:
        return None
    objective = Objective(settings.direction, settings.temperature, settings.ce_weight, settings.top_k)
    if settings.cache:
        return Distiller(cached_teacher, objective)  # the data workers read it: cache_reader
    teacher = OnlineTeacher(
        settings.teacher,
        vocab_size=phase.model.vocab_size,
        device=device,
        tokenizer=_tokenizer(phase),
        sharded=sharded,
    )
    return Distiller(teacher, objective)


def cache_reader(phase: Phase) -> CacheReader | None:
    """What reads the teacher's cache into the batches; None for a phase without one."""
    settings = phase.recipe.training.distillation
    return CacheReader(_caches(phase)) if settings and settings.cache else None


def _tokenizer(phase: Phase) -> Path:
    return phase.build.parent / phase.manifest.tokenizer.path / "tokenizer.json"


def _caches(phase: Phase) -> list[tuple[Path, TeacherRecord]]:
    settings = phase.recipe.training.distillation
    assert settings is not None
    return find_caches(phase.recipe, phase.manifest, phase.build, str(phase.path))
