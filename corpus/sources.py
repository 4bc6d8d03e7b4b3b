"""`python -m corpus.sources`: list the catalogue, show one entry in full, or check that it can be read."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.base.errors import UserError, command

if TYPE_CHECKING:
    from corpus.catalogue.models import Source


def _list(as_json: bool) -> None:
    from corpus.catalogue.load import load_catalogue

    catalogue = load_catalogue()
    if as_json:
        print(json.dumps({name: _facts(source) for name, source in catalogue.items()}, indent=2, ensure_ascii=False))
        return
    from corpus.report.catalogue import show_sources

    show_sources(catalogue)


def _facts(source: Source) -> dict[str, Any]:
    return source.model_dump(mode="json", exclude_none=True)


def _show(name: str, as_json: bool) -> None:
    from corpus.catalogue.load import find_source, stand_ins

    source = find_source(name)
    facts = {"name": name, **_facts(source), "stand_ins": stand_ins(name)}
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    import yaml

    print(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=110).rstrip())


def _check(name: str, as_json: bool, mirror: Path | None) -> int:
    from dataclasses import asdict

    from corpus.base.numbers import file_size
    from corpus.catalogue.check import check_source
    from corpus.catalogue.load import find_source

    source = find_source(name)
    result = check_source(source, Path(), mirror)
    if as_json:
        print(json.dumps({"name": name, **asdict(result)}, indent=2, ensure_ascii=False))
    else:
        state = "reachable" if result.reachable else "not reachable"
        print(f"{name}: {state}{', gated' if result.gated else ''}; {result.files:,} files, {file_size(result.bytes)}")
        if result.problem:
            print(UserError(result.problem, where=name, fix=result.fix).one_line())
    return 0 if result.problem is None else 1


def _pins(data: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from corpus.catalogue.pins import pins

    found = pins(data / "downloads" if data.is_dir() else None)
    if as_json:
        print(json.dumps([asdict(pin) for pin in found], indent=2, ensure_ascii=False))
        return
    from corpus.report.catalogue import show_pins

    show_pins(found)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m corpus.sources",
        description="List the catalogue of datasets; with a name, show that entry in full.",
    )
    parser.add_argument("name", nargs="?", help="a source of the catalogue")
    parser.add_argument("--check", action="store_true", help="ask what is there; exits 1 when it cannot be read")
    parser.add_argument("--mirror", type=Path, metavar="DIR", help="check a local mirror of the hub instead")
    parser.add_argument(
        "--pins", action="store_true", help="show the revision each upstream is read at, and what is not pinned"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="with --pins: whose first answers are shown"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    with command():
        args = _arguments(argv)
        if args.pins:
            if args.name is not None:
                raise UserError("is about all sources", where="--pins", fix="Leave the name out.")
            _pins(args.data, args.json)
        elif args.name is None:
            if args.check:
                raise UserError("--check needs the name of a source", fix="`python -m corpus.sources` lists them.")
            _list(args.json)
        elif args.check:
            raise SystemExit(_check(args.name, args.json, args.mirror))
        else:
            _show(args.name, args.json)


if __name__ == "__main__":
    main()
