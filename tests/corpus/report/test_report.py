"""`corpus.report`: its numbers are the manifest's, corpus text stays text, and a real browser has nothing to say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from corpus.records.manifest import Manifest, load_manifest
from corpus.records.stream import StreamRecord, load_stream
from corpus.report.html import control_name, link, text
from corpus.report.page import write_report
from corpus.report.samples import TokenBytes
from tests.conftest import documents, recipe_dict, run_command, user_error, write_jsonl
from tests.waiting import PATIENCE

HOSTILE = [
    "<script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "</div></section></script></style></title><svg onload=\"document.title='owned'\">",
    "NUL \x00, escape \x1b[31m, bidi \u202egnp.exe\u2066, hidden \u200b\U000e0041, \u2028 line, \r\n end",
    "<!-- <![CDATA[ &lt;b&gt; &amp; \"'` 数学 👩‍🔬 تجربة e\u0301\n\tfin",
]
VOID = {"meta", "link", "line"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build directory of a recipe whose texts, names and licences are hostile, made by the build command."""
    folder = tmp_path_factory.mktemp("report")
    hostile = [{"text": one} for one in HOSTILE]
    broken = [{"text": ""}, {"text": ""}, {"other": 1}]
    write_jsonl(folder / "a.jsonl", [*hostile[:3], *broken, *documents(120, seed=1)])
    write_jsonl(folder / "b.jsonl", [*hostile[3:], {"text": "a long one " * 300}, *documents(40, seed=2)])
    recipe = recipe_dict(
        {"a": ["a.jsonl"], "b": ["b.jsonl"]}, {"a": 2.0, "b": 1.0}, tokens=32 * 4 * 300, unit_bytes=1 << 16
    )
    recipe["summary"] = "<script>x</script>"
    recipe["sources"]["a"] |= {"title": "<b>bold</b>\u202e", "licence": "<i>", "licence_url": "javascript:alert(1)"}
    recipe["sources"]["b"] |= {"licence_url": "https://example.org/licence?a=1&b=2", "redistributable": False}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    result = run_command("-m", "corpus.build", str(path), "--out", str(folder / "data"), "--workers", "1")
    assert result.returncode == 0, result.stderr
    assert f"report: {folder / 'data' / 'small' / 'report.html'}" in result.stderr
    return folder / "data" / "small"


@dataclass
class Element:
    """A parsed element."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Every element below with this tag (* for any) and these attributes."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if tag in ("*", child.tag) and all(child.attributes.get(k) == v for k, v in attributes.items()):
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class Tree(HTMLParser):
    """Parses strictly: every element that is opened is closed, in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("document", {})]
        self.feed(page)
        self.close()
        assert [element.tag for element in self.open] == ["document"]
        self.root = self.open[0]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def tree(built: Path) -> Element:
    return Tree((built / "report.html").read_text(encoding="utf-8")).root


def records(built: Path) -> tuple[Manifest, dict[str, StreamRecord]]:
    manifest = load_manifest(built)
    return manifest, {name: load_stream(built / source.stream) for name, source in manifest.sources.items()}


def rows(root: Element, caption: str) -> dict[str, list[float]]:
    """A table's numbers by the head of each row, as its `<data>` elements state them."""
    (table,) = [one for one in root.all("table") if one.all("caption")[0].text == caption]
    body = table.all("tbody")[0].all("tr")
    found = {row.all("th")[0].text: [float(data.attributes["value"]) for data in row.all("data")] for row in body}
    for data in table.all("data"):  # what people read is what machines read
        shown = data.text.replace(",", "").replace("\u2212", "")
        if re.fullmatch(r"\d+", shown):
            assert int(shown) == float(data.attributes["value"])
    return found


def chart(root: Element, name: str) -> dict[tuple[str, str], tuple[float, float]]:
    """(value, width in percent) of a chart's bars by source and row."""
    return {
        (one.attributes["data-source"], one.attributes.get("data-row", "")): (
            float(one.attributes["data-value"]),
            float(one.attributes["height" if name == "lengths" else "width"].rstrip("%")),
        )
        for one in root.all("rect", **{"data-chart": name})
    }


def check_numbers(root: Element, built: Path) -> None:
    """Tables and charts of a parsed page against the manifest and the streams' records."""
    manifest, streams = records(built)
    drawn = sum(source.samples_drawn for source in manifest.sources.values())
    most = max(source.tokens for source in manifest.sources.values())
    mix, tokens = rows(root, "Mix asked and realised"), rows(root, "Tokens and epochs by source")
    accounting, by_length = rows(root, "Token accounting"), rows(root, "Documents by length in tokens")
    for place, (name, source) in enumerate(manifest.sources.items()):
        record, realised = streams[name], source.samples_drawn / drawn
        assert mix[name] == [source.weight_asked, source.weight, realised, source.samples_drawn, source.tokens_drawn]
        assert tokens[name] == [source.tokens, source.samples, source.tokens_drawn, source.epochs]
        assert accounting[name][:4] == [
            record.tokens.text, record.tokens.boundary, record.tokens.written, record.tokens.remainder
        ]  # fmt: skip
        assert accounting[name][4:] == [
            record.text_bytes, record.text_bytes / record.tokens.text, record.shards, record.shard_bytes
        ]  # fmt: skip
        asked_bar, realised_bar = chart(root, "mix asked")[name, ""], chart(root, "mix realised")[name, ""]
        assert asked_bar == (source.weight, pytest.approx(100 * source.weight, abs=1e-3))
        assert realised_bar == (realised, pytest.approx(100 * realised, abs=1e-3))
        assert chart(root, "tokens")[name, ""] == (source.tokens, pytest.approx(100 * source.tokens / most, abs=1e-3))
        assert chart(root, "epochs")[name, ""][0] == source.epochs
        columns = chart(root, "lengths")
        tallest = max(record.lengths.values())
        assert {bits: value for (of, bits), (value, _) in columns.items() if of == name} == record.lengths
        assert all(
            columns[name, bits][1] == pytest.approx(100 * count / tallest, abs=1e-3)
            for bits, count in record.lengths.items()
        )
        assert sum(counts[place] for counts in by_length.values()) == record.documents.kept
        steps = rows(root, f"Documents of {name}: read, dropped by reason, kept")
        assert {reason: numbers[0] for reason, numbers in steps.items()} == {
            "read": source.documents.read, **source.documents.dropped, "kept": source.documents.kept
        }  # fmt: skip
        bars = {step: bar for (of, step), bar in chart(root, "funnel").items() if of == name}
        assert {step: value for step, (value, _) in bars.items()} == {step: one[0] for step, one in steps.items()}
        assert sum(width for step, (_, width) in bars.items() if step != "read") == pytest.approx(100, abs=1e-2)
    assert mix["all"][-2:] == [drawn, sum(source.tokens_drawn for source in manifest.sources.values())]
    assert manifest.fingerprint in {code.text for code in root.all("code")}


def test_the_numbers_are_the_manifests(built: Path) -> None:
    manifest, _ = records(built)
    root = tree(built)
    check_numbers(root, built)
    assert sum(manifest.sources["a"].documents.dropped.values()) == 3
    for name, source in manifest.sources.items():
        marked = [row for row in root.all("tr", **{"class": "often"}) if row.all("th")[0].text == name]
        assert bool(marked) == (source.epochs > 4)
    assert any(source.epochs > 4 for source in manifest.sources.values())
    notices = root.all("ul", **{"class": "notices"})[0].text
    assert "Do not publish: the streams of b." in notices and "sum to 3;" in notices
    assert [row.all("th")[0].text for row in root.all("tr", **{"class": "private"})] == ["b"]
    for source in manifest.sources.values():
        assert {source.revision, source.stream_fingerprint} <= {code.text for code in root.all("code")}
    versions = manifest.built["versions"]
    assert set(versions.values()) <= {code.text for code in root.all("code")}


def test_hostile_text_stays_text(built: Path) -> None:
    page = (built / "report.html").read_bytes().decode("utf-8")
    root = Tree(page).root
    assert not {element.tag for element in root.all("*")} & {"script", "img", "iframe", "object", "form", "base"}
    for element in root.all("*"):
        assert not any(name.startswith("on") or name in ("style", "src", "srcdoc") for name in element.attributes)
        assert element.attributes.get("href", "#").startswith(("#", "https://", "data:,"))
    assert {one.attributes["href"] for one in root.all("a") if "licence" in one.attributes["href"]} >= {
        "https://example.org/licence?a=1&b=2"
    }
    assert "javascript:" not in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]", page)
    assert "<!--" not in page and page.count("</style>") == 1
    shown = [one.text for one in root.all("div", **{"class": "text"})]
    for one in HOSTILE:
        visible = re.sub(
            "[\x00-\x09\x0b-\x1f\u200b\u2028\u202e\u2066\U000e0041]",
            lambda match: match[0] if match[0] == "\t" else control_name(match[0]), one,
        )  # fmt: skip
        assert visible in shown


def test_every_token_is_shown(built: Path) -> None:
    root = tree(built)
    articles = root.all("article")
    assert len(articles) >= 4
    for article in articles:
        tokens = article.all("div", **{"class": "tokens"})[0]
        assert [one.text for one in tokens.all("b")] == ["BOS"]
        assert all(one.attributes["title"].isdigit() for one in tokens.all("i"))
        assert article.all("span", **{"class": "good"})[0].text == "decodes to the text"
    long = next(one for one in articles if "beginning only" in one.text)
    raw, tokens = (long.all("div", **{"class": name})[0].text for name in ("text", "tokens"))
    assert tokens.removeprefix("BOS").startswith(raw.removesuffix(" \u2026")[:1900])
    assert len(tokens) < len(raw) + 50  # the tokens stop where the shown text does


def test_bytes_of_a_tokenizer_with_byte_fallback() -> None:
    from tokenizers import Tokenizer, decoders, models

    vocab = {"<unk>": 0, "<0xE2>": 1, "<0x82>": 2, "<0xAC>": 3, "\u2581the": 4, "\u00e9": 5}
    tokenizer = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    token_bytes = TokenBytes(tokenizer.to_str().encode())
    assert b"".join(map(token_bytes, [4, 5, 1, 2, 3])).decode() == " the\u00e9\u20ac"
    assert token_bytes(99) == b""


def test_escaping() -> None:
    assert text("a<b>&\"'") == "a&lt;b&gt;&amp;&quot;&#x27;"
    assert text("\x00") == '<span class="ctl" title="U+0000">\u2400</span>'
    assert text("\ud800") == '<span class="ctl" title="U+D800">U+D800</span>'  # else the page could not be encoded
    assert text("a\u00a0\u3000\n\t\u200d") == "a\u00a0\u3000\n\t\u200d"
    for url in ("javascript:alert(1)", "data:text/html,x", "//x", "https://x y", "https://x\n", None):
        assert link("here", url) == "here"
    assert 'href="https://x/&quot;&gt;"' in link("here", 'https://x/">')


def test_it_is_the_same_every_time(built: Path) -> None:
    first = (built / "report.html").read_bytes()
    (built / "report.html").unlink()
    result = run_command("-m", "corpus.report", str(built), PYTHONHASHSEED="7")
    assert result.returncode == 0 and result.stdout.strip() == str(built / "report.html")
    assert (built / "report.html").read_bytes() == first
    assert not list(built.glob(".report*"))


def test_user_mistakes(built: Path, tmp_path: Path) -> None:
    assert "holds no manifest" in user_error(run_command("-m", "corpus.report", str(tmp_path)))
    shutil.copytree(built.parent, tmp_path / "data", ignore=shutil.ignore_patterns("downloads"))
    stream = next((tmp_path / "data" / "streams").glob("a-*")) / "stream.json"
    record = json.loads(stream.read_text())
    stream.write_text(json.dumps({**record, "samples": record["samples"] + 1}))
    error = user_error(run_command("-m", "corpus.report", str(tmp_path / "data" / "small")))
    assert "not the stream that the manifest was made from" in error


def test_a_copy_without_sample_documents(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built.parent, tmp_path / "data", ignore=shutil.ignore_patterns("documents.json", "downloads"))
    page = write_report(load_manifest(built), tmp_path / "data" / "small").read_text()
    assert page.count("No documents of this source were kept") == 2


def browse(page: Path, profile: Path) -> tuple[str, list[str]]:
    """Open a page in headless Chromium; returns its DOM and its console's lines."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed (Debian package chromium)")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0", "--dump-dom",
    ]  # fmt: skip
    result = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, timeout=PATIENCE)
    console = [line for line in result.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.decode("utf-8"), console


def test_in_a_browser(built: Path, tmp_path: Path) -> None:
    dom, console = browse(built / "report.html", tmp_path / "profile")
    assert console == []
    # What the browser made of the page holds the same numbers (it closes <line/> with a tag of its own).
    root = Tree(re.sub(r"</line>", "", dom)).root
    check_numbers(root, built)
    assert root.all("title")[0].text == "small: corpus report"
    assert root.all("script") == [] and root.all("img") == []
    # The same texts do harm in a page that does not escape them, so the two checks above can fail.
    control = tmp_path / "control.html"
    control.write_text("<!DOCTYPE html><title>safe</title>" + HOSTILE[0] + "<script>console.error('seen')</script>")
    dom, console = browse(control, tmp_path / "profile")
    assert "<title>owned</title>" in dom and any("seen" in line for line in console)
