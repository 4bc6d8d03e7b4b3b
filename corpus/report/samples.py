"""The browser of sample documents: the text a source gave, beside the tokens that were stored for it."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError

from corpus.base.collector import parse_large
from corpus.base.config import Strict
from corpus.base.errors import UserError
from corpus.records.stream import StreamRecord
from corpus.report.html import Markup, el, text
from corpus.streams.plan import SHOWN_CHARS, SHOWN_FILE, SHOWN_UNITS


class SampleDocument(Strict):
    """A document as a unit kept it for people to look at."""

    name: str
    """Its file and place in the file."""
    text: str
    """What was tokenised, at most SHOWN_CHARS characters of it."""
    cut: bool
    """The text is longer than what is kept here."""
    ids: list[int]
    """Its ids with boundaries, at most SHOWN_CHARS of them."""


def read_documents(stream: Path, record: StreamRecord) -> list[SampleDocument]:
    """The documents that the stream's first units kept; none where a copy of the stream left those files out."""
    shown: list[SampleDocument] = []
    for unit in sorted(unit.unit for unit in record.units if unit.unit < SHOWN_UNITS):
        path = stream / "units" / f"{unit:06d}" / SHOWN_FILE
        try:
            shown += TypeAdapter(list[SampleDocument]).validate_python(json.loads(path.read_bytes()))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, ValidationError) as error:
            raise UserError(f"is not readable: {str(error).splitlines()[0]}", where=str(path)) from None
    return shown


class TokenBytes:
    """The bytes each id stands for, for byte-level tokenizers and for those with byte fallback."""

    def __init__(self, tokenizer_json: bytes) -> None:
        # Read as what it is: as a tokenizer it takes four times as long to load.
        data = parse_large(tokenizer_json)
        vocab = data["model"]["vocab"]
        # Unigram models have a list of (token, score), the others token -> id.
        tokens = enumerate(token for token, _ in vocab) if isinstance(vocab, list) else map(reversed, vocab.items())
        self._tokens: dict[int, str] = dict(tokens)
        self._tokens.update((token["id"], token["content"]) for token in data.get("added_tokens") or [])
        self.byte_level = b'"ByteLevel"' in orjson.dumps(data["decoder"])
        self._table = _byte_alphabet() if self.byte_level else {}

    def __call__(self, token_id: int) -> bytes:
        """The bytes of one id; empty for an id the tokenizer does not know."""
        token = self._tokens.get(token_id, "")
        if self.byte_level:
            if all(char in self._table for char in token):
                return bytes(self._table[char] for char in token)
            return token.encode()  # an added token is stored as it is spelled
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes.fromhex(token[3:5])
        return token.replace("\u2581", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE's letters: printable Latin-1 stands for itself, the other bytes for U+0100 and on, in order."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(itself)]
    return {chr(byte): byte for byte in itself} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def sample(document: SampleDocument, record: StreamRecord, token_bytes: TokenBytes) -> Markup:
    """One document: what it is, its text, its tokens."""
    raw = document.text.encode("utf-8", "surrogatepass")
    pieces = list(_pieces(document, record, token_bytes, len(raw)))
    decoded = b"".join(piece for _, piece, boundary in pieces if not boundary)
    cut = document.cut or len(document.ids) >= SHOWN_CHARS
    same = _same(decoded, raw, cut) or (not token_bytes.byte_level and _same(decoded.removeprefix(b" "), raw, cut))
    verdict = ("decodes to the text", "good") if same else ("decodes to something else", "bad")
    facts = [el("span", f"{len(document.text):,} characters", class_="fact")]
    facts += [el("span", f"{len(pieces):,} ids", class_="fact")]
    facts += [el("span", "beginning only", class_="fact")] if cut else []
    facts += [el("span", verdict[0], class_=verdict[1])]
    ending = el("span", " \u2026", class_="more") if cut else None
    left = el("div", el("h4", "Text"), el("div", document.text, ending, class_="text", dir="auto"), class_="pane")
    right = el("div", el("h4", "Tokens"), el("div", _tokens(pieces), ending, class_="tokens", dir="ltr"), class_="pane")
    header = el("header", el("code", document.name), facts)
    return el("article", header, el("div", left, right, class_="pair"), class_="doc")


def _pieces(
    document: SampleDocument, record: StreamRecord, token_bytes: TokenBytes, size: int
) -> Iterator[tuple[int, bytes, str]]:
    """(id, its bytes, 'BOS', 'EOS' or '') for the ids that spell the shown text of ``size`` bytes."""
    bos, eos = record.tokenizer.bos_id, record.tokenizer.eos_id
    done = 0
    for place, token_id in enumerate(document.ids):
        if token_id == bos and record.boundary != "eos" and place == 0:
            yield token_id, b"", "BOS"
        elif token_id == eos and record.boundary != "bos":
            yield token_id, b"", "EOS"
        elif document.cut and done >= size:
            return
        else:
            piece = token_bytes(token_id)
            done += len(piece)
            yield token_id, piece, ""


def _tokens(pieces: list[tuple[int, bytes, str]]) -> Iterator[Markup]:
    """Each id as an element with the id as its title; one that ends inside a character shows its bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token_id, piece, boundary in pieces:
        if boundary:
            yield el("b", boundary, title=f"boundary, id {token_id}")
            continue
        shown = decoder.decode(piece)
        inside = _spaced(shown) if shown else el("u", piece.hex(" ").upper() or "?")
        yield el("i", inside, title=token_id)


def _spaced(shown: str) -> Markup:
    """A token's text, with a sign before each line feed and tab."""
    return Markup(text(shown).replace("\n", "<s>\u21b5</s>\n").replace("\t", "<s>\u21e5</s>\t"))


def _same(decoded: bytes, raw: bytes, cut: bool) -> bool:
    shorter = min(len(decoded), len(raw))
    return decoded[:shorter] == raw[:shorter] if cut else decoded == raw
