"""The report of a build: one HTML page that needs nothing else, made from the manifest and its streams' records."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from corpus.base.errors import UserError
from corpus.base.files import atomic_write
from corpus.records.manifest import Manifest
from corpus.records.stream import load_stream
from corpus.report import accounts, charts, documents, mixture
from corpus.report.html import Markup, el, join, plain
from corpus.report.layout import Entry
from corpus.report.samples import TokenBytes, read_documents

REPORT_FILE = "report.html"


def write_report(manifest: Manifest, build_dir: Path) -> Path:
    """Write report.html into ``build_dir`` (where the manifest is) and return its path.

    The page depends on the manifest and the streams alone. Raises UserError when a stream is missing, incomplete or
    no longer the one the manifest was made from, or when the tokenizer's file is missing.
    """
    entries = [_entry(place, name, manifest, build_dir) for place, name in enumerate(manifest.sources)]
    page = _page(manifest, entries, _token_bytes(manifest, build_dir, entries))
    path = build_dir / REPORT_FILE
    with atomic_write(path) as stream:
        stream.write(page.encode())
    return path


def _entry(place: int, name: str, manifest: Manifest, build_dir: Path) -> Entry:
    source = manifest.sources[name]
    folder = build_dir / source.stream
    record = load_stream(folder)
    if record.fingerprint != source.stream_fingerprint:
        raise UserError(
            "is not the stream that the manifest was made from", where=str(folder), fix="Build the recipe again."
        )
    shown = read_documents(folder, record)
    # A large source has tens of thousands of units, of which the report needs nothing more.
    light = record.model_copy(update={"units": []})
    return Entry(name, charts.colour(place), source, light, shown)


def _token_bytes(manifest: Manifest, build_dir: Path, entries: list[Entry]) -> TokenBytes:
    data = (build_dir / entries[0].source.stream).parent.parent
    path = data / manifest.tokenizer.path / "tokenizer.json"
    if not path.is_file():
        raise UserError("no such file", where=str(path), fix="Build the recipe again.")
    return TokenBytes(path.read_bytes())


def _page(manifest: Manifest, entries: list[Entry], token_bytes: TokenBytes) -> str:
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # No script may run and nothing may be loaded, whatever a document contains; the one style sheet goes by its hash.
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    parts = [
        mixture.mix(manifest, entries),
        mixture.tokens(entries),
        documents.lengths(manifest, entries),
        documents.funnel(entries),
        accounts.accounting(entries),
        documents.samples(entries, token_bytes),
        accounts.licences(entries),
        accounts.provenance(manifest, entries),
    ]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name_="referrer", content="no-referrer"),
        el("meta", name_="color-scheme", content="light dark"),
        el("link", rel="icon", href="data:,"),
        el("title", plain(f"{manifest.recipe}: corpus report")),
        el("style", Markup(style)),
    )
    intro = el(
        "header",
        el("p", "Corpus report", class_="kicker"),
        el("h1", manifest.recipe),
        el("p", f"{manifest.family}, {manifest.phase}: {manifest.tokens:,} tokens in samples of {manifest.seq_len:,}, "
           f"documents marked by {manifest.boundary.upper() if manifest.boundary != 'both' else 'BOS and EOS'}.",
           class_="lead"),
        mixture.key_figures(manifest, entries),
        mixture.notices(manifest, entries),
        class_="intro",
    )  # fmt: skip
    body = el("body", _contents(), el("main", intro, join(*parts)))
    return f"<!DOCTYPE html>\n{el('html', head, body, lang='en')}\n"


def _contents() -> Markup:
    titles = {
        "mix": "Mix", "tokens": "Tokens", "lengths": "Lengths", "drops": "Drops", "accounting": "Accounting",
        "samples": "Samples", "licences": "Licences", "provenance": "Provenance",
    }  # fmt: skip
    return el("nav", (el("a", title, href=f"#{anchor}") for anchor, title in titles.items()), aria_label="Sections")
