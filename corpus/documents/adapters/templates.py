"""Filling a template with record text, which is never looked at for placeholders."""

from __future__ import annotations

import re
from collections.abc import Callable

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def check_template(template: str, names: tuple[str, ...]) -> str:
    """``template`` itself when it mentions each of ``names`` and nothing else; raises ValueError otherwise."""
    used = set(_PLACEHOLDER.findall(template))
    known = " and ".join("{" + name + "}" for name in names)
    if unknown := sorted(used - set(names)):
        raise ValueError(f"template mentions {{{unknown[0]}}}; it may mention {known}")
    if missing := [name for name in names if name not in used]:
        raise ValueError(f"template never mentions {{{missing[0]}}}")
    return template


def fill(template: str) -> Callable[[dict[str, str]], str]:
    """A function that puts values into a template once; braces inside the values stay as they are."""
    # Odd positions of a split on one group are the placeholder names; record text is never looked at for them.
    parts = _PLACEHOLDER.split(template)

    def filled(values: dict[str, str]) -> str:
        return "".join(values[part] if i % 2 else part for i, part in enumerate(parts))

    return filled
