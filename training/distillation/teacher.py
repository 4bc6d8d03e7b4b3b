"""The online teacher: a transformers causal language model that runs beside the student, without gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from corpus.base.errors import UserError
from training.distillation.identity import check_vocabulary, teacher_folder
from training.distillation.loss import LogitsOf

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Hidden:
    """What a teacher makes of one batch: enough to compute its logits chunk by chunk."""

    states: Tensor
    """(N, d) last hidden states, or (N, V) logits where the model does more than multiply by its head."""
    head: nn.Module | None

    def __call__(self, part: slice) -> Tensor:
        """Logits (n, V) of the tokens in `part`."""
        with torch.no_grad():
            return self.states[part] if self.head is None else self.head(self.states[part])


class OnlineTeacher:
    """Computes a batch's teacher logits. Not a module: the student's checkpoints, optimiser and wrappers pass it by."""

    def __init__(
        self, name: str, *, vocab_size: int, device: torch.device, tokenizer: Path | None = None, sharded: bool = False
    ) -> None:
        """Load the model of a hub name or local folder, in bfloat16 on a GPU and float32 on a CPU.

        `tokenizer` is the student's tokenizer.json. `sharded` splits the layers over all processes (FSDP2); each then
        still reads the whole model into its own CPU memory while loading. Raises UserError when the model cannot be
        loaded or its vocabulary is not the student's.
        """
        folder = teacher_folder(name, weights=True)
        check_vocabulary(name, folder, vocab_size, tokenizer)
        model = _load(name, folder, torch.bfloat16 if device.type == "cuda" else torch.float32)
        head = model.get_output_embeddings()
        if head is None or head.weight.shape[0] != vocab_size:
            raise UserError(f"has no output head of {vocab_size:,} ids", where=f"teacher {name}")
        if sharded:
            _shard(name, model, head, device)
        self.device = device
        self.model: PreTrainedModel = model
        nn.Module.to(model, device)
        self._base = _base(model)
        self._head = head if self._plain_head(head) else None

    @torch.no_grad()
    def _plain_head(self, head: nn.Module) -> bool:
        """Whether the logits are just the head's product; some classes scale or cap them afterwards."""
        if self._base is None:
            return False
        probe = torch.arange(8, device=self.device).unsqueeze(0)
        logits = self.model(input_ids=probe, use_cache=False).logits
        return torch.equal(logits, head(self._base(input_ids=probe, use_cache=False).last_hidden_state))

    @torch.no_grad()
    def logits_of(self, ids: Tensor, doc_ids: Tensor | None = None) -> Hidden:
        """For ids (B, S) and, to keep attention inside documents, doc_ids (B, S): the logits of all B * S tokens."""
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
        if doc_ids is not None:
            inputs["attention_mask"] = self._mask(doc_ids)
        with torch.autocast(self.device.type, enabled=False):
            if self._head is None or self._base is None:
                return Hidden(self.model(**inputs).logits.flatten(0, 1), None)
            return Hidden(self._base(**inputs).last_hidden_state.flatten(0, 1), self._head)

    def _mask(self, doc_ids: Tensor) -> Tensor:
        """(B, 1, S, S), added to the attention scores: causal, and only inside documents."""
        from training.model.attention import attention_mask

        visible = attention_mask(doc_ids.shape[1], None, doc_ids, doc_ids.device)
        assert visible is not None
        lowest = torch.finfo(self.model.dtype).min
        return torch.zeros(visible.shape, dtype=self.model.dtype, device=doc_ids.device).masked_fill_(~visible, lowest)

    def __call__(self, batch: Mapping[str, Tensor]) -> LogitsOf:
        """The logits of a training batch (keys of training/run/composer_model.py)."""
        return self.logits_of(batch["input_ids"], batch.get("doc_ids"))


def _load(name: str, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, attn_implementation="sdpa"
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot be loaded: {reason}", where=f"teacher {name}",
            fix="Name a causal language model of the transformers library with .safetensors weights.",
        ) from None  # fmt: skip
    return model.eval().requires_grad_(False)


def _base(model: PreTrainedModel) -> nn.Module | None:
    """The model below the output head; some classes name none, and then mostly keep it as `model`."""
    below = model.base_model if model.base_model is not model else getattr(model, "model", None)
    return below if isinstance(below, nn.Module) else None


def _shard(name: str, model: PreTrainedModel, head: nn.Module, device: torch.device) -> None:
    """Split the layers' parameters over all processes. Embedding and head stay whole: chunks need the head again and
    again, and gathering it each time would cost more than it saves."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    base, depth = _base(model), model.config.get_text_config().num_hidden_layers
    lists = [m for m in base.modules() if isinstance(m, nn.ModuleList) and len(m) == depth] if base else []
    if base is None or not lists:
        raise UserError(
            "this kind of model cannot be sharded: it has no list of layers", where=f"teacher {name}",
            fix="Train with --parallel ddp, or write its top k first: python -m training.teacher.",
        )  # fmt: skip
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    whole: set[nn.Parameter] = {*head.parameters(), *model.get_input_embeddings().parameters()}
    for layer in lists[0]:
        fully_shard(layer, mesh=mesh)
    fully_shard(base, mesh=mesh, ignored_params=whole)
