"""The base of every YAML-backed model: strict keys, errors that name file and key, bounded YAML."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from corpus.base.errors import UserError, nearest
from corpus.base.numbers import number, whole

MAX_YAML_BYTES = 4 << 20
"""A recipe or catalogue file is a few kilobytes; anything near this size is a mistake or an attack."""


class Strict(BaseModel):
    """A pydantic model that refuses unknown keys and is immutable once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, data: Any) -> Any:
        # YAML gives a number with an exponent but without its sign, such as 2e12, as text; and people write 4k and 80%.
        if not isinstance(data, dict):
            return data
        kinds = {key: field.annotation for name, field in cls.model_fields.items() for key in (name, field.alias)}
        return {key: _read_numbers(kinds.get(key), value) for key, value in data.items()}


def _read_numbers(kind: Any, value: Any) -> Any:
    """``value`` with texts that stand for numbers read as such, wherever ``kind`` is a number and nothing else."""
    if isinstance(value, str):
        read = {int: whole, float: lambda text: float(number(text))}.get(_alone(kind))
        with contextlib.suppress(ValueError):
            return read(value) if read else value
    elif isinstance(value, list) and get_origin(_alone(kind)) in (list, tuple):
        inner = [part for part in get_args(_alone(kind)) if part is not ...]
        return [_read_numbers(inner[min(place, len(inner) - 1)], each) for place, each in enumerate(value)]
    elif isinstance(value, dict) and get_origin(_alone(kind)) is dict:
        return {key: _read_numbers(get_args(_alone(kind))[1], each) for key, each in value.items()}
    return value


def _alone(kind: Any) -> Any:
    """A type without what is written around it: metadata, and None as the other choice."""
    if get_origin(kind) is Annotated:
        return _alone(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        rest = [part for part in get_args(kind) if part is not type(None)]
        return _alone(rest[0]) if len(rest) == 1 else None
    return kind


M = TypeVar("M", bound=BaseModel)


class _NoAliasLoader(yaml.SafeLoader):
    """A safe loader that refuses aliases (expansion bombs) and repeated keys (the last would win silently)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(
                None, None, "YAML aliases (*name) are not allowed", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises UserError naming the file (and line) when it cannot be read."""
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise UserError(f"is larger than {MAX_YAML_BYTES >> 20} MiB", where=str(path), fix="Is it the right file?")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            "no such file", where=str(path), fix="Check the path; `ls recipes` lists the recipes."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from None
    try:
        data = yaml.load(text, Loader=_NoAliasLoader)  # noqa: S506 - a SafeLoader subclass
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"not valid YAML: {getattr(error, 'problem', None) or error}", where=where) from None
    if not isinstance(data, dict):
        raise UserError("must be a mapping of keys to values", where=str(path))
    return data


def parse(model: type[M], data: Any, where: str) -> M:
    """Validate ``data`` as ``model``; raises UserError naming ``where``, the key, and the nearest known key."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise user_error(error, model, where) from None


def user_error(error: ValidationError, model: type[BaseModel], where: str) -> UserError:
    """The first problem of a pydantic ValidationError as a one-line UserError; missing keys are all named."""
    # An unknown key is most often the cause of the missing one beside it, so report it first.
    problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    missing = [_key(problem["loc"]) for problem in problems if problem["type"] == "missing"]
    first = problems[0]
    # A key that is missing is told below, whatever else there is.
    others = len(problems) - len(missing) - (first["type"] != "missing")
    more = f" (and {others} more)" if others > 0 else ""
    loc = _key(first["loc"])
    spot = f"{where}: key '{loc}'" if loc else where
    if first["type"] == "missing":
        if len(missing) == 1:
            return UserError(f"this key is required{more}", where=spot, fix="Add it.")
        return UserError(f"these keys are required: {', '.join(missing)}{more}", where=where, fix="Add them.")
    also = f"; these keys are missing: {', '.join(missing)}" if missing else ""
    if first["type"] == "extra_forbidden":
        hint = nearest(str(first["loc"][-1]), _keys_at(model, first["loc"]))
        if missing:
            hint = f"{hint} Missing: {', '.join(missing)}."
        return UserError(f"unknown key{more}", where=spot, fix=hint)
    message = first["msg"].removeprefix("Value error, ")
    got = "" if isinstance(first.get("input"), (dict, list)) else f", got {first.get('input')!r}"[:80]
    return UserError(f"{message}{got}{more}{also}", where=spot)


def _key(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> set[str]:
    """The keys the model knows at an error location (union and dict levels are searched through)."""
    level: list[type[BaseModel]] = [model]
    for part in loc[:-1]:
        deeper: list[type[BaseModel]] = []
        for one in level:
            for name, field in one.model_fields.items():
                if part in (name, field.alias):
                    deeper += list(_models_in(field.annotation))
        level = deeper or level
    return {field.alias or name for one in level for name, field in one.model_fields.items()}
