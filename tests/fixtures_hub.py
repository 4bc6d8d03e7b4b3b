"""Small copies of every source of the catalogue for the loopback hub: true layouts and field names, invented values.

    expected = fill(hub)
    expected["starcoder"].kept, expected["starcoder"].dropped, expected["starcoder"].files

Files lie where the catalogue's globs look for them, in the sources' own formats and compressions, beside files that no
glob may match. Records have the inconsistencies of the originals: `metadata` of another type in each row, columns that
differ between folders, nulls where text is expected. Each source yields at least one sample of the recipes that use it.
"""

from __future__ import annotations

import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from corpus.catalogue import load_catalogue
from corpus.catalogue.models import Source
from corpus.prepare import input_origins
from tests.loopback_hub import LoopbackHub

TOKEN = "loopback-token-that-must-not-leak"  # noqa: S105 - made up
LARGE_FILE_BYTES = 2_500_000
"""At least so large is the one file (RedPajama's StackExchange) that downloads can be stopped in the middle of."""

WORDS = (
    "the of and to in is that for it as with on be by this are from at or an have not which but one all were when we "
    "there can more if their will would about up out them then other into time two may these some could people like "
    "number way water been call who oil its now find long down day did get come made part integral matrix theorem "
    "naïve café 数学 — “so” x_1 = 42; def f(n): return n**2 {'a': [1, 2]} \\frac{1}{2} $a^2+b^2$ <|begin_of_text|> "
    "<reponame>ann/demo<gh_stars>3 </s> <s> \t 0x1F http://example.org/a?b=1 it's 1,000.50"
).split(" ")
BROKEN_LINE = b'{"text": "cut off in the mid'


@dataclass
class Expected:
    """What a build must say of a source."""

    files: int = 0
    bytes: int = 0
    joined_files: int = 0
    """Files of other repositories its records are joined with."""
    joined_bytes: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def read(self) -> int:
        """Records in the source."""
        return self.kept + sum(self.dropped.values())


def prose(seed: str, words: int) -> str:
    """Deterministic text of so many words."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def jsonl(records: Sequence[dict[str, Any] | bytes]) -> bytes:
    """JSON lines; bytes go in as they are."""
    return b"".join(
        (record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False).encode()) + b"\n"
        for record in records
    )


def gz(data: bytes) -> bytes:
    """gzip without a time stamp."""
    return gzip.compress(data, mtime=0)


def zst(data: bytes) -> bytes:
    """One zstd frame."""
    return zstandard.ZstdCompressor().compress(data)


def parquet(records: Sequence[dict[str, Any]], schema: Mapping[str, pa.DataType] | None = None) -> bytes:
    """Rows as parquet in two row groups; ``schema`` for columns whose type the rows do not tell."""
    fields = {
        name: pa.array([r.get(name) for r in records]).type for name in dict.fromkeys(k for r in records for k in r)
    }
    fields.update(schema or {})
    out = io.BytesIO()
    table = pa.Table.from_pylist(list(records), pa.schema(list(fields.items())))
    pq.write_table(table, out, row_group_size=max(1, len(records) // 2))
    return out.getvalue()


Pack = Callable[[Sequence[Any]], bytes]
PACKS: dict[str, Pack] = {
    ".json.gz": lambda records: gz(jsonl(records)),
    ".jsonl.gz": lambda records: gz(jsonl(records)),
    ".json.zst": lambda records: zst(jsonl(records)),
    ".jsonl.zst": lambda records: zst(jsonl(records)),
    ".jsonl": jsonl,
    ".parquet": parquet,
}


class _Shelf:
    """The files made so far, and what each source is to find in them."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.urls: dict[str, bytes] = {}
        self.expected = {name: Expected() for name, s in load_catalogue().items() if s.origin.kind != "embedded"}

    def hub(
        self, repo: str, path: str, records: Sequence[Any], sources: str, dropped: Mapping[str, int] | None = None
    ) -> None:
        """A file of a repository, and the sources (by name, spaces between) that read it."""
        data = next(pack for ending, pack in PACKS.items() if path.endswith(ending))(records)
        self.repos.setdefault(repo, {})[path] = data
        self._count(data, records, sources, dropped or {})

    def url(self, url: str, records: Sequence[Any], sources: str, dropped: Mapping[str, int] | None = None) -> None:
        """A file behind a plain URL."""
        data = next(pack for ending, pack in PACKS.items() if url.endswith(ending))(records)
        self.urls[url] = data
        self._count(data, records, sources, dropped or {})

    def looked_up(self, repo: str, path: str, records: Sequence[Any], source: str) -> None:
        """A file that a source's records are joined with."""
        self.hub(repo, path, records, "")
        self.expected[source].joined_files += 1
        self.expected[source].joined_bytes += len(self.repos[repo][path])

    def other(self, repo: str, path: str, data: bytes = b"none of a build's business\n") -> None:
        """A file that no glob may match."""
        self.repos.setdefault(repo, {})[path] = data

    def _count(self, data: bytes, records: Sequence[Any], sources: str, dropped: Mapping[str, int]) -> None:
        blank = sum(record == b"" for record in records)
        for name in sources.split():
            found = self.expected[name]
            found.files += 1
            found.bytes += len(data)
            found.kept += len(records) - blank - sum(dropped.values())
            found.dropped.update(dropped)


def fill(hub: LoopbackHub) -> dict[str, Expected]:
    """Serve every source of the catalogue from ``hub``, the gated ones for TOKEN only; returns what builds must count."""
    shelf = _Shelf()
    for make in (_starcoder, _web, _dolmino, _redpajama, _proof_pile, _nemotron, _dolma, _benchmarks, _fine_tuning):
        make(shelf)
    hub.tokens.add(TOKEN)
    sources = load_catalogue().values()
    origins = [origin for source in sources for origin in (source.origin, *_joined(source))]
    revisions = {origin.repo: origin.revision for origin in origins if origin.kind == "hub"}
    gated = {source.origin.repo for source in sources if source.gate and source.origin.kind == "hub"}
    for repo, files in shelf.repos.items():
        files = {".gitattributes": b"*.parquet filter=lfs\n", "README.md": f"# {repo}\n".encode(), **files}
        # The catalogue has seven digits of some commits; the hub makes up the rest, and commits of branches.
        revision = revisions[repo]
        commit = None if revision == "main" else (revision + "0123456789abcdef" * 3)[:40]
        hub.add_dataset(repo, files, revision=commit, gated=repo in gated)
    for url, data in shelf.urls.items():
        hub.add_url(url, data)
    hub.add_model("TinyLlama/TinyLlama_v1.1", {"tokenizer.json": small_tokenizer(), "config.json": b"{}"})
    return shelf.expected


def _joined(source: Source) -> list[Any]:
    return [origin for origin, _ in input_origins(source).values()]


def small_tokenizer() -> bytes:
    """A byte-level BPE of a few hundred ids with <unk>, <s> and </s> first, as Llama 2's vocabulary has them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator([prose("tokenizer", 4000)], trainer)
    return str(model.to_str()).encode()


def _dolma_lines(name: str, count: int, words: int = 350, odd: bool = True) -> list[dict[str, Any] | bytes]:
    """Lines as in Dolma, Dolmino and peS2o: `metadata` and `attributes` are of another kind in each row.

    With ``odd`` a blank line and the four lines of ODD come among them.
    """
    rows: list[dict[str, Any] | bytes] = []
    for n in range(count):
        row: dict[str, Any] = {
            "id": f"{name}-{n}",
            "text": prose(f"{name}{n}", words),
            "source": name,
            "added": "2024-03-01T00:00:00.000Z",
            "created": "2023-01-01",
            "version": "v0",
            "metadata": [{"url": "http://example.org", "score": 0.5}, {"score": "high", "tags": [1, None]}, None, {}][
                n % 4
            ],
        }
        if n % 3 == 0:
            row["attributes"] = {"paragraphs": [[0, 12, 0.25]], "lang": {"en": 0.9} if n % 2 else None}
        if n % 5 == 0:
            row["doc"] = {"arrival": n}
        rows.append(row)
    odd_ones = [b"", {"id": "e", "text": ""}, {"id": "m"}, {"id": "n", "text": None}, BROKEN_LINE]
    return [*rows[:1], *odd_ones, *rows[1:]] if odd else rows


ODD = {"empty": 1, "missing_field": 1, "not_text": 1, "invalid_json": 1}


def _rows(name: str, count: int, text: str, columns: Callable[[int], dict[str, Any]], words: int = 350) -> list[Any]:
    """Parquet rows, the last two without text (ODD_ROWS)."""
    rows = [{text: prose(f"{name}{n}", words), **columns(n)} for n in range(count)]
    return [*rows, {text: None, **columns(count)}, {text: "", **columns(count + 1)}]


ODD_ROWS = {"not_text": 1, "empty": 1}


def _starcoder(shelf: _Shelf) -> None:
    repo = "bigcode/starcoderdata"

    def code(n: int) -> dict[str, Any]:
        return {
            "max_stars_repo_path": f"src/a{n}.py",
            "max_stars_repo_name": "ann/demo",
            "max_stars_count": None if n % 2 else n,
            "id": str(n),
        }

    for name in ("python/train-00000-of-00002", "python/train-00001-of-00002", "rust/train-00000-of-00001"):
        shelf.hub(repo, f"{name}.parquet", _rows(name, 5, "content", code), "starcoder", ODD_ROWS)
    special: dict[str, Callable[[int], dict[str, Any]]] = {
        "git-commits-cleaned": lambda n: {"hexsha": f"{n:040x}", "size": n, "ext": "py", "license": ["mit"]},
        "github-issues-filtered-structured": lambda n: {
            "repo": "ann/demo",
            "issue_id": n,
            "events": [{"action": "opened"}],
        },
        "jupyter-scripts-dedup-filtered": lambda n: {"repo_name": "ann/demo", "path": f"n{n}.ipynb", "lang": "python"},
        "jupyter-structured-clean-dedup": lambda n: {
            "chain_length": n,
            "avg_line_length": 7.5,
            "alphanum_fraction": 0.5,
        },
    }
    for name, columns in special.items():
        rows = _rows(name, 2, "content", columns)
        shelf.hub(repo, f"{name}/train-00000-of-00001.parquet", rows, "starcoder", ODD_ROWS)
    shelf.other(repo, "top_level.parquet")


def _web(shelf: _Shelf) -> None:
    """OpenWebMath, FineWeb-Edu, Cosmopedia, FineMath, natural_reasoning."""
    repo = "open-web-math/open-web-math"
    for part in range(2):
        rows = _rows(
            f"owm{part}", 9, "text",
            lambda n: {"url": f"http://example.org/{n}", "date": "2023-03-28 07:29:35", "metadata": json.dumps({"extraction_info": {"found_math": True}, "n": n})},
        )  # fmt: skip
        shelf.hub(repo, f"data/train-0000{part}-of-00114-5c0f.parquet", rows, "open_web_math", ODD_ROWS)

    repo = "HuggingFaceFW/fineweb-edu"

    def edu(dump: str) -> Callable[[int], dict[str, Any]]:
        def columns(n: int) -> dict[str, Any]:
            row = {
                "id": f"<urn:uuid:{n}>", "dump": dump, "url": "http://example.org", "file_path": "s3://commoncrawl/x",
                "language": "en", "language_score": 0.97, "token_count": 12, "score": 3.1, "int_score": 3,
            }  # fmt: skip
            return row if dump < "CC-MAIN-2016" else {**row, "date": "2017-01-01T00:00:00Z"}

        return columns

    dumps = [
        f"CC-MAIN-{year}-{week}" for year in range(2013, 2024) for week in (["20", "48"] if year < 2015 else ["22"])
    ]
    for dump in [*dumps, "CC-MAIN-2024-10", "CC-MAIN-2024-18", "CC-MAIN-2025-05"]:
        sources, rows = ("fineweb_edu", _rows(dump, 2, "text", edu(dump))) if dump < "CC-MAIN-2024-11" else ("", [])
        if rows:
            shelf.hub(repo, f"data/{dump}/train-00000-of-00014.parquet", rows, sources, ODD_ROWS)
        else:
            shelf.other(repo, f"data/{dump}/train-00000-of-00014.parquet")
    for sample in ("10BT", "100BT", "350BT"):
        rows = _rows(sample, 12, "text", edu("CC-MAIN-2024-18"))
        shelf.hub(repo, f"sample/{sample}/000_00000.parquet", rows, f"fineweb_edu_{sample.lower()}", ODD_ROWS)

    repo = "HuggingFaceTB/cosmopedia"
    configs = "auto_math_text khanacademy openstax stanford stories web_samples_v1 web_samples_v2 wikihow"
    for config in configs.split():
        rows = _rows(
            config, 3, "text",
            lambda n: {"prompt": "Write a long text", "text_token_length": n, "seed_data": "x", "format": "textbook", "audience": "general"},
        )  # fmt: skip
        shelf.hub(repo, f"data/{config}/train-00000-of-00001.parquet", rows, "cosmopedia", ODD_ROWS)

    repo = "HuggingFaceTB/finemath"

    def infi(n: int) -> dict[str, Any]:
        return {"url": "u", "metadata": "{}", "score": 3.5, "int_score": 4, "token_count": n, "char_count": n}

    def fine(n: int) -> dict[str, Any]:
        return {
            **infi(n), "fetch_time": 20240301000000, "content_mime_type": "text/html", "warc_filename": "w",
            "warc_record_offset": n, "warc_record_length": n, "crawl": "CC-MAIN-2023-50", "snapshot_type": "latest",
            "language": "en", "language_score": 0.9,
        }  # fmt: skip

    for config, columns in (("finemath-3plus", fine), ("finemath-4plus", fine), ("infiwebmath-3plus", infi), ("infiwebmath-4plus", infi)):  # fmt: skip
        rows = _rows(config, 14, "text", columns)
        shelf.hub(repo, f"{config}/train-00000-of-00128.parquet", rows, config.replace("-", "_"), ODD_ROWS)

    answers = [
        {"responses": [{"response_model": "some-model", "response": prose("nr-r", 300)}], "reference_answer": ""},
        {"responses": [], "reference_answer": prose("nr-a", 300)},
        {"responses": [{"response_model": "some-model", "response": None}], "reference_answer": prose("nr-b", 300)},
    ]
    records: list[Any] = [{"question": prose(f"nr{n}", 60), **answers[n % 3]} for n in range(15)]
    records += [{"question": "why?", "responses": [], "reference_answer": ""}, {"question": " ", **answers[0]}]
    bad = {"empty_answer": 1, "empty_question": 1}
    shelf.hub("facebook/natural_reasoning", "full.jsonl", records, "natural_reasoning", bad)


def _dolmino(shelf: _Shelf) -> None:
    repo = "allenai/dolmino-mix-1124"
    files = {
        "dclm/0000/dclm-0000.json.zst": "dolmino_dclm",
        "dclm/0001/dclm-0001.json.zst": "dolmino_dclm",
        "flan/flan-0000.json.gz": "dolmino_flan",
        "pes2o/pes2o-0000.json.gz": "dolmino_pes2o",
        "wiki/wiki-0000.json.gz": "dolmino_wiki",
        "wiki/wiki-0001.json.gz": "dolmino_wiki",
        "stackexchange/stackexchange-0000.json.gz": "dolmino_stackexchange",
        "math/tinyGSM-MIND/clean_stop/0/part-0.jsonl.gz": "dolmino_math dolmino_math_tinygsm_mind",
        "math/mathcoder2-synthmath/filtered-math/book.jsonl": "dolmino_math dolmino_math_mathcoder2_synthmath",
        "math/dolmino_math_synth/basic_math/gen.jsonl": "dolmino_math dolmino_math_synth",
        "math/metamath-owmfilter/mm.jsonl.gz": "dolmino_math dolmino_math_metamath",
        "math/tulu_math/personahub.jsonl": "dolmino_math dolmino_math_tulu",
        "math/gsm8k/v0_main_train/docs.jsonl.zst": "dolmino_math dolmino_math_gsm8k",
        "math/codesearchnet-owmfilter/csn.jsonl.gz": "dolmino_math dolmino_math_codesearchnet",
    }
    for path, sources in files.items():
        shelf.hub(repo, f"data/{path}", _dolma_lines(path, 13), sources, ODD)
    shelf.other(repo, "data/math/README.md")

    repo = "allenai/olmo-mix-1124"
    for name in ("starcoder", "open-web-math", "wiki", "arxiv", "algebraic-stack", "pes2o"):
        shelf.hub(repo, f"data/{name}/train/{name}-0000.json.gz", _dolma_lines(name, 12), f"olmo_mix_{name.replace('-', '_')}", ODD)  # fmt: skip
    shelf.other(repo, "data/dclm/0000/dclm-0000.json.zst")

    repo = "allenai/peS2o"
    for number in (0, 10, 19):
        name = f"data/v2/train-{number:05d}-of-00020.json.gz"
        shelf.hub(repo, name, _dolma_lines(name, 6), "pes2o", ODD)
    shelf.other(repo, "data/v2/validation-00000-of-00002.json.gz")
    shelf.other(repo, "data/v1/train-00000-of-00020.json.gz")


def _redpajama(shelf: _Shelf) -> None:
    base = "https://data.together.xyz/redpajama-data-1T/v1.0.0"
    urls = [f"{base}/arxiv/arxiv_0{n}0fa1c2-5b1c-4f2a-9d1e-2d1bdc7e1f0{n}.jsonl" for n in range(4)]
    for number, url in enumerate(urls):
        meta = {
            "timestamp": "2022-11-04T19:24:32",
            "yymm": "2211",
            "arxiv_id": f"2211.0{number}",
            "language": "en",
            "url": "u",
        }
        records = [{"text": f"\\section{{A}} {prose(f'arxiv{number}{n}', 350)}", "meta": meta} for n in range(4)]
        shelf.url(url, [*records, {"meta": {}}], "redpajama_arxiv", {"missing_field": 1})
    listing = "https://huggingface.co/datasets/togethercomputer/RedPajama-Data-1T/resolve/main/urls/arxiv.txt"
    shelf.urls[listing] = "".join(f"{url}\n" for url in urls).encode()

    records = []
    while sum(len(r["text"]) for r in records) < LARGE_FILE_BYTES:
        n = len(records)
        meta = {"language": "en", "url": "u", "timestamp": "2023", "source": "stackexchange", "question_score": str(n)}
        records.append({"text": f"Q: {prose(f'q{n}', 40)}\nA: {prose(f'a{n}', 8000)}", "meta": meta})
    shelf.url(f"{base}/stackexchange/stackexchange.jsonl", [*records, BROKEN_LINE], "redpajama_stackexchange", {"invalid_json": 1})  # fmt: skip


def _proof_pile(shelf: _Shelf) -> None:
    repo = "EleutherAI/proof-pile-2"
    for split, name in (("train", "agda0001"), ("train", "c0000"), ("validation", "agda0001"), ("test", "tex0000")):
        records: list[Any] = [
            {
                "text": prose(f"{split}{name}{n}", 350),
                "meta": [{"lang": "agda", "stars": 3}, {"size": "12"}, None][n % 3],
            }
            for n in range(5)
        ]
        shelf.hub(repo, f"algebraic-stack/{split}/{name}.jsonl.zst", [*records, {"text": ""}], "algebraic_stack", {"empty": 1})  # fmt: skip
    shelf.other(repo, "arxiv/train/arXiv_000.jsonl.zst")
    shelf.other(repo, "proof-pile-2.py")
    for split in ("train", "validation", "test"):
        rows = _rows(f"typeof{split}", 5, "text", lambda n: {})
        shelf.hub("typeof/algebraic-stack", f"{split}/0000.parquet", rows, "algebraic_stack_parquet", ODD_ROWS)


def _nemotron(shelf: _Shelf) -> None:
    repo = "nvidia/Llama-Nemotron-Post-Training-Dataset"
    files = {
        "science/science.jsonl": "nemotron_science",
        "code/code_v1.jsonl": "nemotron_code",
        "code/code_v1.1.jsonl": "nemotron_code",
        "math/math_v1.jsonl": "nemotron_math",
        "math/math_v1.1.jsonl": "nemotron_math",
    }
    for path, source in files.items():
        records: list[Any] = []
        for n in range(12):
            turns = [{"role": "user", "content": prose(f"{path}q{n}", 40)}]
            if n % 4 == 0:
                turns = [{"role": "system", "content": "Be brief."}, *turns]
            records.append(
                {
                    "input": turns, "output": f"<think>{prose(f'{path}a{n}', 300)}</think>4", "category": "math",
                    "license": "cc-by-4.0", "reasoning": "on" if n % 2 else "off", "generator": "some-model",
                    "used_in_training": None if n % 3 else "Ultra, Super, Nano", "version": "v1",
                    "system_prompt": "detailed thinking on",
                }
            )  # fmt: skip
        records += [{"input": [], "output": "x"}, {"input": turns, "output": ""}, {"input": [{"role": "critic", "content": "c"}], "output": "x"}]  # fmt: skip
        bad = {"no_messages": 1, "empty_answer": 1, "unknown_role": 1}
        shelf.hub(repo, f"SFT/{path}", records, source, bad)
    shelf.other(repo, "SFT/chat/chat.jsonl")
    shelf.other(repo, "RL/instruction_following/instruction_following.jsonl")

    repo = "nvidia/Nemotron-Pretraining-Code-v1"
    for part in range(2):
        rows = _rows(f"ncode{part}", 9, "text", lambda n: {"id": str(n), "metadata": {"models_used": ["some-model"]}})
        shelf.hub(repo, f"Synthetic-Code/part_00000{part}.parquet", rows, "nemotron_code_synthetic", ODD_ROWS)
    pointers = [{"repo": "ann/demo", "commit_id": "5d81d77", "rel_path": "app/A.java", "language": "Java"}]
    shelf.other(repo, "Nemotron-Code-Metadata/part_000000.parquet", parquet(pointers))

    def math(n: int) -> dict[str, Any]:
        scores = {
            "finemath_scores": 3.5,
            "finemath_int_scores": 4,
            "nemocurator_scores": 3.1,
            "nemocurator_int_scores": 3,
        }
        about = {"category": "math", "models_used": ["some-model"], "warc_filename": "w", "warc_id": str(n), **scores}
        return {"id": str(n), "metadata": None if n % 3 == 2 else about}

    repo = "nvidia/Nemotron-CC-Math-v1"
    for config, sources in (
        ("3", "nemotron_cc_math nemotron_cc_math_3"),
        ("4plus", "nemotron_cc_math nemotron_cc_math_4plus"),
        ("4plus_MIND", "nemotron_cc_math_4plus_mind"),
    ):
        rows = _rows(f"ccmath{config}", 13, "text", math)
        shelf.hub(repo, f"{config}/part_000000.parquet", rows, sources, ODD_ROWS)

    repo = "nvidia/Nemotron-Pretraining-Dataset-sample"
    for folder, source in (("Nemotron-Synthetic-Code", "nemotron_sample_code"), ("Nemotron-CC-MATH", "nemotron_sample_cc_math")):  # fmt: skip
        shelf.hub(repo, f"{folder}/part_000000.parquet", _rows(folder, 12, "text", math), source, ODD_ROWS)
    shelf.other(repo, "Nemotron-SFT-MATH/part_000000.parquet")


def _dolma(shelf: _Shelf) -> None:
    """The URL lists of Dolma v1.7, one short document per file and the odd lines in the first."""
    from corpus.acquire.urls import expand

    for name, source in load_catalogue().items():
        if name.startswith("dolma_") and source.origin.kind == "urls":
            for number, url in enumerate(expand(source.origin.urls[0], name)):
                lines = _dolma_lines(url, max(1, 12 - 4 * number), 300, odd=number == 0)
                shelf.url(url, lines, name, ODD if number == 0 else {})


def _benchmarks(shelf: _Shelf) -> None:
    """The training sets of eight benchmarks; questions longer than true ones, so that few of them make a sample."""
    repo = "mandarjoshi/trivia_qa"
    trivia: list[Any] = [
        {
            "question": prose(f"tqa{n}", 400), "question_id": f"tc_{n}", "question_source": "http://example.org",
            "entity_pages": {"doc_source": [], "title": []}, "search_results": {"rank": [n], "url": ["u"]},
            "answer": {"value": "Paris" if n % 8 else None, "aliases": ["paris"], "normalized_value": "paris"},
        }
        for n in range(24)
    ]  # fmt: skip
    shelf.hub(repo, "rc.nocontext/train-00000-of-00001.parquet", trivia, "trivia_qa", {"empty_answer": 3})
    shelf.other(repo, "rc.nocontext/validation-00000-of-00001.parquet")
    shelf.other(repo, "rc/train-00000-of-00026.parquet")

    def choices(question: str, seed: str, digits: bool = False) -> list[Any]:
        labels = ["1", "2", "3", "4"] if digits else ["A", "B", "C", "D"]
        rows = [
            {
                "id": str(n),
                question: prose(f"{seed}{n}", 300),
                "choices": {"text": [prose(f"{seed}{n}{label}", 5) for label in labels], "label": labels},
                # ARC mixes both kinds of label; the key may be of the other kind than the list.
                "answerKey": "ABCD"[n % 4] if n % 2 else labels[n % 4],
            }
            for n in range(20)
        ]
        return [*rows, {**rows[0], "answerKey": "Z"}, {**rows[1], "answerKey": None}]

    bad = {"unknown_answer_key": 1, "not_text": 1}
    shelf.hub(
        "allenai/openbookqa", "main/train-00000-of-00001.parquet", choices("question_stem", "obqa"), "openbookqa", bad
    )
    shelf.other("allenai/openbookqa", "main/test-00000-of-00001.parquet")
    for name, source in (("ARC-Easy", "arc_easy"), ("ARC-Challenge", "arc_challenge")):
        rows = choices("question", name, digits=source == "arc_challenge")
        shelf.hub("allenai/ai2_arc", f"{name}/train-00000-of-00001.parquet", rows, source, bad)
        shelf.other("allenai/ai2_arc", f"{name}/test-00000-of-00001.parquet")

    nq: list[Any] = [
        {"question": prose(f"nq{n}", 300), "answer": ["14 December 1972", "1972"][: n % 3]} for n in range(24)
    ]
    shelf.url(_catalogue_urls("natural_questions")[0], nq, "natural_questions", {"empty_answer": 8})

    records_url, labels_url = _catalogue_urls("piqa")
    piqa: list[Any] = [
        {"goal": prose(f"piqa{n}", 250), "sol1": prose(f"one{n}", 20), "sol2": prose(f"two{n}", 20) if n else ""}
        for n in range(20)
    ]
    # The first record's right solution is empty, the last label names no solution.
    labels = ["1", *(str(n % 2) for n in range(1, 19)), "2"]
    shelf.url(records_url, piqa, "piqa", {"empty_answer": 1, "unknown_answer_key": 1})
    shelf.urls[labels_url] = "".join(f"{label}\n" for label in labels).encode()
    shelf.expected["piqa"].files += 1
    shelf.expected["piqa"].bytes += len(shelf.urls[labels_url])

    gsm: list[Any] = [
        {"question": prose(f"gsm{n}", 250), "answer": f"He has 2*3=<<2*3=6>>6 apples. {prose(f'gsma{n}', 60)}\n#### 6"}
        for n in range(20)
    ]
    shelf.hub("openai/gsm8k", "main/train-00000-of-00001.parquet", gsm, "gsm8k")
    shelf.other("openai/gsm8k", "main/test-00000-of-00001.parquet")
    shelf.other("openai/gsm8k", "socratic/train-00000-of-00001.parquet")

    boolq = [
        {"question": "is it so", "passage": prose(f"boolq{n}", 300), "answer": None if n == 7 else n % 2 == 0}
        for n in range(22)
    ]
    shelf.hub("google/boolq", "data/train-00000-of-00001.parquet", boolq, "boolq", {"not_a_boolean": 1})
    shelf.other("google/boolq", "data/validation-00000-of-00001.parquet")


def _catalogue_urls(name: str) -> list[str]:
    origin = load_catalogue()[name].origin
    assert origin.kind == "urls"
    return origin.urls


def _fine_tuning(shelf: _Shelf) -> None:
    """The sets of the two fine-tuning phases; the reasoning ones long enough for a sample of 32,769 tokens."""
    chats: list[Any] = []
    for n in range(20):
        turns = [
            {"role": "user", "content": prose(f"tulu{n}", 40)},
            {"role": "assistant", "content": prose(f"re{n}", 300)},
        ]
        chats.append({"id": f"set_{n}", "source": "ai2-adapt-dev/set", "messages": turns * (1 + n % 2)})
    chats += [{"id": "none", "source": "x", "messages": []}, {"id": "null", "source": "x", "messages": None}]
    shelf.hub(
        "allenai/tulu-3-sft-olmo-2-mixture-0225", "data/train-00000-of-00006.parquet", chats, "tulu3_sft_olmo2",
        {"no_messages": 2},
    )  # fmt: skip

    repo = "nvidia/OpenMathReasoning"
    math: list[Any] = [
        {
            "expected_answer": "6", "problem_type": "has_answer_extracted", "problem_source": "aops", "generation_model": "m",
            "pass_rate_72b_tir": "n/a" if n % 2 else "0.5", "problem": prose(f"omr{n}", 60),
            "generated_solution": f"<think>{prose(f'omrs{n}', 1500)}</think> 6", "inference_mode": "cot",
            "used_in_kaggle": n % 2 == 0,
        }
        for n in range(24)
    ]  # fmt: skip
    shelf.hub(repo, "data/cot-00000-of-00144.parquet", [*math, {"problem": "p", "generated_solution": None}], "open_math_reasoning", {"not_text": 1})  # fmt: skip
    shelf.other(repo, "data/tir-00000-of-00072.parquet")
    shelf.other(repo, "data/genselect-00000-of-00030.parquet")

    repo = "nvidia/OpenScienceReasoning-2"
    science: list[Any] = [
        {"expected_answer": "B", "input": prose(f"osr{n}", 80), "output": prose(f"osrs{n}", 1500)} for n in range(24)
    ]
    bad = {"empty_question": 1}
    shelf.hub(repo, "train/OpenScienceReasoning-2.parquet", [*science, {"input": "", "output": "x"}], "open_science_reasoning_2", bad)  # fmt: skip
    _code_reasoning(shelf)


def _code_reasoning(shelf: _Shelf) -> None:
    """OpenCodeReasoning-2, whose questions are withheld, and the four sets that have them."""
    found = {
        "taco": ("train", 3),
        "apps": ("test", 1),
        "code_contests": ("valid", 2),
        "open-r1/codeforces": ("train", 0),
    }

    def record(n: int, dataset: str, split: str, index: str) -> dict[str, Any]:
        return {
            "question": "-", "r1_generation": prose(f"ocr{n}", 1500), "qwq_critique": "-", "solution": "print(1)",
            "judgement": "right", "pass_rate": "-1", "source": "codeforces", "license": "cc-by-4.0", "dataset": dataset,
            "split": split, "difficulty": "EASY", "index": index, "id": f"{n:032x}", "question_id": f"{n % 5:032x}",
        }  # fmt: skip

    for language in ("python", "cpp"):
        records: list[Any] = [
            record(n, dataset, split, str(index)) for n, (dataset, (split, index)) in enumerate(list(found.items()) * 4)
        ]
        # A row that is not there, a data set nobody knows, a row whose question is empty.
        records += [
            record(90, "taco", "train", "999"),
            record(91, "leetcode", "train", "0"),
            record(92, "apps", "test", "0"),
        ]
        path = f"train/{language}/train-00000-of-00030.parquet"
        shelf.hub("nvidia/OpenCodeReasoning-2", path, records, "open_code_reasoning_2", {"question_not_recovered": 3})
    shelf.other("nvidia/OpenCodeReasoning-2", "train-extra/python/train-00000-of-00010.parquet")

    def questions(name: str, count: int, column: str = "question") -> list[dict[str, Any]]:
        return [{column: f"{name} question {n}: {prose(f'{name}{n}', 30)}", "difficulty": "EASY"} for n in range(count)]

    taco = [(f"ALL/{split}-0000{n}-of-00002.parquet", questions(f"taco {split} {n}", 2)) for split in ("train", "test") for n in range(2)]  # fmt: skip
    lookups: dict[str, list[tuple[str, list[dict[str, Any]]]]] = {
        "BAAI/TACO": taco,
        "codeparrot/apps": [
            ("train.jsonl", questions("apps train", 2)),
            ("test.jsonl", [{"question": ""}, *questions("apps test", 2)]),
        ],
        "deepmind/code_contests": [
            (f"data/{split}-00000-of-00001-e991.parquet", questions(f"contests {split}", 3, "description"))
            for split in ("train", "valid", "test")
        ],
        "open-r1/codeforces": [
            (
                f"data/{split}-00000-of-00001.parquet",
                [
                    {
                        **row, "input_format": "One line.", "output_format": None, "note": "Mind the gap.",
                        "examples": [{"input": "1", "output": "2"}],
                    }
                    for row in questions(f"codeforces {split}", 2, "description")
                ],
            )
            for split in ("train", "test")
        ],
    }  # fmt: skip
    for repo, files in lookups.items():
        for path, rows in files:
            shelf.looked_up(repo, path, rows, "open_code_reasoning_2")
        shelf.other(repo, f"{repo.rpartition('/')[2]}.py")


def revision_of(hub: LoopbackHub, source: str) -> str | None:
    """The commit a build must record for a hub source read as it is; None where it records a hash over its files."""
    entry = load_catalogue()[source]
    if entry.origin.kind != "hub" or entry.prepare is not None:
        return None
    return hub.repos["datasets", entry.origin.repo].commit
