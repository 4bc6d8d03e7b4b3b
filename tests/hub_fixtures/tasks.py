"""The training sets of benchmarks, and the fine-tuning sets."""

from __future__ import annotations

from typing import Any

from corpus.catalogue.load import load_catalogue
from tests.hub_fixtures.shelf import Shelf, prose


def benchmarks(shelf: Shelf) -> None:
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


def fine_tuning(shelf: Shelf) -> None:
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
            "expected_answer": "6", "problem_type": "has_answer_extracted", "problem_source": "aops",
            "generation_model": "m",
            "pass_rate_72b_tir": "n/a" if n % 2 else "0.5", "problem": prose(f"omr{n}", 60),
            "generated_solution": f"<think>{prose(f'omrs{n}', 1500)}</think> 6", "inference_mode": "cot",
            "used_in_kaggle": n % 2 == 0,
        }
        for n in range(24)
    ]  # fmt: skip
    shelf.hub(
        repo,
        "data/cot-00000-of-00144.parquet",
        [*math, {"problem": "p", "generated_solution": None}],
        "open_math_reasoning",
        {"not_text": 1},
    )
    shelf.other(repo, "data/tir-00000-of-00072.parquet")
    shelf.other(repo, "data/genselect-00000-of-00030.parquet")

    repo = "nvidia/OpenScienceReasoning-2"
    science: list[Any] = [
        {"expected_answer": "B", "input": prose(f"osr{n}", 80), "output": prose(f"osrs{n}", 1500)} for n in range(24)
    ]
    bad = {"empty_question": 1}
    shelf.hub(
        repo,
        "train/OpenScienceReasoning-2.parquet",
        [*science, {"input": "", "output": "x"}],
        "open_science_reasoning_2",
        bad,
    )
    _code_reasoning(shelf)


def _code_reasoning(shelf: Shelf) -> None:
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

    taco = [
        (f"ALL/{split}-0000{n}-of-00002.parquet", questions(f"taco {split} {n}", 2))
        for split in ("train", "test")
        for n in range(2)
    ]
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


ALL = [benchmarks, fine_tuning]
