"""The sources of pre-training and mid-training, and their stand-ins."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from corpus.catalogue.load import load_catalogue
from tests.hub_fixtures.shelf import BROKEN_LINE, ODD, ODD_ROWS, Shelf, dolma_lines, parquet, prose, rows_of

LARGE_FILE_BYTES = 2_500_000
"""At least so large is the one file (RedPajama's StackExchange) that downloads can be stopped in the middle of."""


def starcoder(shelf: Shelf) -> None:
    repo = "bigcode/starcoderdata"

    def code(n: int) -> dict[str, Any]:
        return {
            "max_stars_repo_path": f"src/a{n}.py",
            "max_stars_repo_name": "ann/demo",
            "max_stars_count": None if n % 2 else n,
            "id": str(n),
        }

    for name in ("python/train-00000-of-00002", "python/train-00001-of-00002", "rust/train-00000-of-00001"):
        shelf.hub(repo, f"{name}.parquet", rows_of(name, 5, "content", code), "starcoder", ODD_ROWS)
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
        rows = rows_of(name, 2, "content", columns)
        shelf.hub(repo, f"{name}/train-00000-of-00001.parquet", rows, "starcoder", ODD_ROWS)
    shelf.other(repo, "top_level.parquet")


def web(shelf: Shelf) -> None:
    """OpenWebMath, FineWeb-Edu, Cosmopedia, FineMath, natural_reasoning."""
    repo = "open-web-math/open-web-math"
    for part in range(2):
        rows = rows_of(
            f"owm{part}", 9, "text",
            lambda n: {
                "url": f"http://example.org/{n}", "date": "2023-03-28 07:29:35",
                "metadata": json.dumps({"extraction_info": {"found_math": True}, "n": n}),
            },
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
        sources, rows = ("fineweb_edu", rows_of(dump, 2, "text", edu(dump))) if dump < "CC-MAIN-2024-11" else ("", [])
        if rows:
            shelf.hub(repo, f"data/{dump}/train-00000-of-00014.parquet", rows, sources, ODD_ROWS)
        else:
            shelf.other(repo, f"data/{dump}/train-00000-of-00014.parquet")
    for sample in ("10BT", "100BT", "350BT"):
        rows = rows_of(sample, 12, "text", edu("CC-MAIN-2024-18"))
        shelf.hub(repo, f"sample/{sample}/000_00000.parquet", rows, f"fineweb_edu_{sample.lower()}", ODD_ROWS)

    repo = "HuggingFaceTB/cosmopedia"
    configs = "auto_math_text khanacademy openstax stanford stories web_samples_v1 web_samples_v2 wikihow"
    for config in configs.split():
        rows = rows_of(
            config, 3, "text",
            lambda n: {
                "prompt": "Write a long text", "text_token_length": n, "seed_data": "x", "format": "textbook",
                "audience": "general",
            },
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

    for config, columns in (
        ("finemath-3plus", fine),
        ("finemath-4plus", fine),
        ("infiwebmath-3plus", infi),
        ("infiwebmath-4plus", infi),
    ):
        rows = rows_of(config, 14, "text", columns)
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


def dolmino(shelf: Shelf) -> None:
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
        shelf.hub(repo, f"data/{path}", dolma_lines(path, 13), sources, ODD)
    shelf.other(repo, "data/math/README.md")

    repo = "allenai/olmo-mix-1124"
    for name in ("starcoder", "open-web-math", "wiki", "arxiv", "algebraic-stack", "pes2o"):
        shelf.hub(
            repo,
            f"data/{name}/train/{name}-0000.json.gz",
            dolma_lines(name, 12),
            f"olmo_mix_{name.replace('-', '_')}",
            ODD,
        )
    shelf.other(repo, "data/dclm/0000/dclm-0000.json.zst")

    repo = "allenai/peS2o"
    for number in (0, 10, 19):
        name = f"data/v2/train-{number:05d}-of-00020.json.gz"
        shelf.hub(repo, name, dolma_lines(name, 6), "pes2o", ODD)
    shelf.other(repo, "data/v2/validation-00000-of-00002.json.gz")
    shelf.other(repo, "data/v1/train-00000-of-00020.json.gz")


def redpajama(shelf: Shelf) -> None:
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
    shelf.url(
        f"{base}/stackexchange/stackexchange.jsonl",
        [*records, BROKEN_LINE],
        "redpajama_stackexchange",
        {"invalid_json": 1},
    )


def proof_pile(shelf: Shelf) -> None:
    repo = "EleutherAI/proof-pile-2"
    for split, name in (("train", "agda0001"), ("train", "c0000"), ("validation", "agda0001"), ("test", "tex0000")):
        records: list[Any] = [
            {
                "text": prose(f"{split}{name}{n}", 350),
                "meta": [{"lang": "agda", "stars": 3}, {"size": "12"}, None][n % 3],
            }
            for n in range(5)
        ]
        shelf.hub(
            repo, f"algebraic-stack/{split}/{name}.jsonl.zst", [*records, {"text": ""}], "algebraic_stack", {"empty": 1}
        )
    shelf.other(repo, "arxiv/train/arXiv_000.jsonl.zst")
    shelf.other(repo, "proof-pile-2.py")
    for split in ("train", "validation", "test"):
        rows = rows_of(f"typeof{split}", 5, "text", lambda n: {})
        shelf.hub("typeof/algebraic-stack", f"{split}/0000.parquet", rows, "algebraic_stack_parquet", ODD_ROWS)


def nemotron(shelf: Shelf) -> None:
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
        records += [
            {"input": [], "output": "x"},
            {"input": turns, "output": ""},
            {"input": [{"role": "critic", "content": "c"}], "output": "x"},
        ]
        bad = {"no_messages": 1, "empty_answer": 1, "unknown_role": 1}
        shelf.hub(repo, f"SFT/{path}", records, source, bad)
    shelf.other(repo, "SFT/chat/chat.jsonl")
    shelf.other(repo, "RL/instruction_following/instruction_following.jsonl")

    repo = "nvidia/Nemotron-Pretraining-Code-v1"
    for part in range(2):
        rows = rows_of(f"ncode{part}", 9, "text", lambda n: {"id": str(n), "metadata": {"models_used": ["some-model"]}})
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
        rows = rows_of(f"ccmath{config}", 13, "text", math)
        shelf.hub(repo, f"{config}/part_000000.parquet", rows, sources, ODD_ROWS)

    repo = "nvidia/Nemotron-Pretraining-Dataset-sample"
    for folder, source in (
        ("Nemotron-Synthetic-Code", "nemotron_sample_code"),
        ("Nemotron-CC-MATH", "nemotron_sample_cc_math"),
    ):
        shelf.hub(repo, f"{folder}/part_000000.parquet", rows_of(folder, 12, "text", math), source, ODD_ROWS)
    shelf.other(repo, "Nemotron-SFT-MATH/part_000000.parquet")


def dolma(shelf: Shelf) -> None:
    """The URL lists of Dolma v1.7, one short document per file and the odd lines in the first."""
    from corpus.acquire.urls import expand

    for name, source in load_catalogue().items():
        if name.startswith("dolma_") and source.origin.kind == "urls":
            for number, url in enumerate(expand(source.origin.urls[0], name)):
                lines = dolma_lines(url, max(1, 12 - 4 * number), 300, odd=number == 0)
                shelf.url(url, lines, name, ODD if number == 0 else {})


ALL = [starcoder, web, dolmino, redpajama, proof_pile, nemotron, dolma]
