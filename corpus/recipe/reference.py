"""The reference of the recipe format, made from the models' own docstrings, so that it cannot say another thing."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from corpus.recipe.model import Recipe

TAGS = ("kind", "shape", "step")
"""Keys whose value says which model the rest of a mapping is."""

HEAD = """# What a recipe can say

Made by `python -m corpus.reference --write docs/recipe.md` from the docstrings of the code; the tests hold it to them.
`python -m corpus.reference WORD` prints the sections and keys that have the word in them.

Whole numbers may be written `20000`, `2e4` or `20k` (k, M, B, T are powers of a thousand), shares `0.8` or `80%`.
"""


@dataclass(frozen=True)
class Key:
    """One key of a section."""

    name: str
    type: str
    default: str
    """`required`, or the default as a recipe would spell it."""
    meaning: str


@dataclass(frozen=True)
class Section:
    """One model: the recipe itself, or what one of its keys holds."""

    path: str
    """Where it stands in a recipe, such as `training.optimizer` or `cleaning: minhash`."""
    summary: str
    keys: tuple[Key, ...]


def sections() -> list[Section]:
    """All sections, the recipe's own first, each model once, in the order in which keys name them."""
    return list(_walk(Recipe, "recipe", set()))


def _walk(model: type[BaseModel], path: str, seen: set[type[BaseModel]]) -> Iterator[Section]:
    if model in seen:
        return
    seen.add(model)
    meanings = field_docstrings(model)
    keys, inside = [], []
    for name, field in model.model_fields.items():
        keys.append(Key(name, _type(field.annotation, field.metadata), _default(name, field), meanings.get(name, "")))
        below = name if path == "recipe" else f"{path}.{name}"
        for other in _models(field.annotation):
            tag = _tag(other)
            inside.append((other, f"{below}: {tag}" if tag else below))
    # What every section repeats (its own tag) stands in its heading.
    shown = tuple(key for key in keys if not (key.name in TAGS and ": " in path))
    yield Section(path, _one_paragraph(model.__doc__), shown)
    for other, below in inside:
        yield from _walk(other, below, seen)


def _tag(model: type[BaseModel]) -> str | None:
    """The fixed value of the key that tells this model from its siblings, if it has such a key."""
    values = (model.model_fields[name].default for name in TAGS if name in model.model_fields)
    return next((value for value in values if isinstance(value, str)), None)


def field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The docstring below each field of a model, its bases' included."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not (issubclass(cls, BaseModel) and cls.__module__.partition(".")[0] == __name__.partition(".")[0]):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, after in zip(body.body, [*body.body[1:], None], strict=True):
            if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[statement.target.id] = _one_paragraph(str(after.value.value))
    return found


def _one_paragraph(text: str | None) -> str:
    return " ".join((text or "").split())


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _type(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type in words: `whole number >= 1`, `list of text`, `"drop" or "fail"`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    bounds = "".join(_bound(item) for item in metadata)
    if origin is Annotated:
        return _type(inner[0], inner[1:]) + bounds
    if origin is Literal:
        return " or ".join(f'"{value}"' for value in inner)
    if origin in (Union, types.UnionType):
        parts = [part for part in inner if part is not type(None)]
        words = list(dict.fromkeys(_type(part) for part in parts))
        return " or ".join(words) + bounds + (" or null" if len(parts) < len(inner) else "")
    if origin is tuple and len(inner) == 2 and inner[1] is not Ellipsis:
        return f"pair of {_type(inner[0])}"
    if origin in (list, tuple):
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"mapping of names to {_type(inner[1])}"
    named = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    if annotation in named:
        return named[annotation] + bounds
    return "one of the kinds below" if _tag(annotation) else "keys below"


def _bound(item: Any) -> str:
    """A limit that pydantic keeps beside a type, in signs."""
    signs = {annotated_types.Ge: ">=", annotated_types.Gt: ">", annotated_types.Le: "<=", annotated_types.Lt: "<"}
    for kind, sign in signs.items():
        if isinstance(item, kind):
            return f" {sign} {getattr(item, kind.__name__.lower()):,}"
    metadata = getattr(item, "metadata", [])
    return "".join(_bound(one) for one in metadata)


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default if field.default is not PydanticUndefined else field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple, dict)) and not value:
        return "none"
    if isinstance(value, tuple):
        return str(list(value))
    return repr(value).replace("'", '"') if isinstance(value, str) else f"{value}"


def markdown(shown: Sequence[Section]) -> str:
    """The sections as a page."""
    parts = [HEAD]
    for section in shown:
        parts.append(f"\n## `{section.path}`\n\n{section.summary}\n")
        if section.keys:
            parts.append("\n| key | what | default | meaning |\n|---|---|---|---|\n")
            for key in section.keys:
                cells = (f"`{key.name}`", key.type, f"`{key.default}`" if key.default != "required" else "**required**")
                parts.append("| " + " | ".join(map(_cell, (*cells, key.meaning))) + " |\n")
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "\\n")


def about(word: str) -> list[Section]:
    """The sections whose path or summary has ``word`` in it, and of the others the keys that have."""
    low = word.lower()
    found = []
    for section in sections():
        if low in section.path.lower() or low in section.summary.lower():
            found.append(section)
            continue
        keys = tuple(key for key in section.keys if low in key.name.lower() or low in key.meaning.lower())
        if keys:
            found.append(Section(section.path, section.summary, keys))
    return found


def undocumented() -> list[str]:
    """Keys without a docstring, as `section.key`."""
    return [f"{section.path}.{key.name}" for section in sections() for key in section.keys if not key.meaning]
