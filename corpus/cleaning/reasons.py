"""Reasons documents are dropped under that other rooms know."""

from __future__ import annotations

from typing import Literal, get_args

CONTAMINATED = "contaminated"
"""The reason of documents that share an n-gram with an evaluation set."""


DropReason = Literal["duplicate", "near_duplicate"]
"""The reasons of comparisons."""
COMPARED: frozenset[str] = frozenset(get_args(DropReason))
