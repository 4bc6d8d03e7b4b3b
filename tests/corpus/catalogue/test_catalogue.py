"""The catalogue: complete against the papers' tables, pinned, and strict about mistakes."""

import pytest

from corpus.base.errors import UserError
from corpus.catalogue.load import find_source, load_catalogue, read_catalogue, stand_ins
from corpus.documents.record import BadRecord

PRETRAINING = {  # rows, tokens in billions, as the table prints them
    "starcoder": (206_640_114, 263.8),
    "open_web_math": (6_117_786, 12.6),
    "fineweb_edu": (1_279_107_432, 1300),
    "dolmino_wiki": (7_222_303, 3.7),
    "redpajama_arxiv": (1_533_917, 28),
    "redpajama_stackexchange": (29_249_120, 19.6),
    "algebraic_stack": (3_404_331, 12.6),
    "nemotron_science": (708_920, 2),
    "nemotron_code": (10_108_883, 16),
    "nemotron_math": (22_066_397, 15),
    "cosmopedia": (31_064_744, 25),
    "natural_reasoning": (1_145_824, 1.8),
    "finemath_3plus": (48_283_984, 34),
    "pes2o": (38_800_000, 50),
}
MIDTRAINING = {  # rows in millions
    "dolmino_dclm": 606,
    "dolmino_flan": 57.3,
    "dolmino_pes2o": 38.8,
    "dolmino_wiki": 6.17,
    "dolmino_stackexchange": 2.48,
    "dolmino_math": 21,
    "nemotron_code_synthetic": 882,
    "nemotron_cc_math": 144,
    "starcoder": 206,
}
BENCHMARKS = {
    "trivia_qa": 138_384,
    "openbookqa": 4_957,
    "natural_questions": 87_925,
    "piqa": 16_113,
    "gsm8k": 7_473,
    "boolq": 9_427,
    "arc_easy": 2_251,
    "arc_challenge": 1_119,
}
POSTTRAINING = {
    "tulu3_sft_olmo2": 866_138,
    "open_math_reasoning": 3_201_061,
    "open_science_reasoning_2": 803_000,
    "open_code_reasoning_2": 2_160_000,
}


def printed(name, table):
    return next(entry for entry in load_catalogue()[name].published if entry.table == table)


def test_every_row_of_the_three_tables():
    for name, (rows, tokens) in PRETRAINING.items():
        entry = printed(name, "pretraining")
        assert (entry.rows, entry.tokens) == (rows, round(tokens * 1e9)), name
    for name, rows in MIDTRAINING.items():
        assert printed(name, "midtraining").rows == round(rows * 1e6), name
    for name, rows in POSTTRAINING.items():
        assert printed(name, "posttraining").rows == rows, name
    for name, rows in BENCHMARKS.items():
        assert load_catalogue()[name].published[0].rows == rows, name


def test_pools_add_up_as_published():
    first = list(PRETRAINING)[:7]
    assert sum(printed(name, "pretraining").rows for name in first) == 1_533_275_003
    assert sum(printed(name, "pretraining").tokens for name in first) == 1_640_300_000_000
    assert sum(printed(name, "pretraining").rows for name in PRETRAINING) == 1_685_453_755
    assert sum(printed(name, "pretraining").tokens for name in PRETRAINING) == 1_784_100_000_000
    assert sum(BENCHMARKS.values()) == 267_649
    finemath = ["finemath_3plus", "finemath_4plus", "infiwebmath_3plus", "infiwebmath_4plus"]
    counts = [next(e.rows for e in load_catalogue()[name].published if e.table == "upstream") for name in finemath]
    assert sum(counts) == PRETRAINING["finemath_3plus"][0]


def test_every_entry_says_where_from_and_on_what_terms():
    for name, source in load_catalogue().items():
        assert source.licence and source.title, name
        assert source.homepage or source.origin.kind == "embedded", name
        adapter = source.adapter
        assert adapter.needs(), name
        with pytest.raises(BadRecord):
            adapter.function()({})
        if source.gate:
            assert source.gate.startswith("https://") and not source.redistributable, name
        if source.origin.kind == "hub" and source.origin.revision == "main":
            assert source.notes, name


def test_known_blockers_are_marked():
    catalogue = load_catalogue()
    assert {name for name, source in catalogue.items() if source.gate} == {
        "starcoder", "nemotron_code_synthetic", "nemotron_cc_math", "nemotron_cc_math_3", "nemotron_cc_math_4plus",
        "nemotron_cc_math_4plus_mind",
    }  # fmt: skip
    for name in ("natural_reasoning", "nemotron_cc_math", "nemotron_code_synthetic", "redpajama_arxiv", "trivia_qa"):
        assert not catalogue[name].redistributable, name


def test_globs_avoid_the_known_traps():
    catalogue = load_catalogue()
    # A prefix such as 4plus* would also catch 4plus_MIND, which rewrites 4plus.
    assert catalogue["nemotron_cc_math"].origin.files == ["3/*.parquet", "4plus/*.parquet"]
    assert len(catalogue["dolmino_math"].origin.files) == 7
    assert catalogue["nemotron_code"].origin.files == ["SFT/code/code_v1.jsonl", "SFT/code/code_v1.1.jsonl"]
    assert catalogue["nemotron_math"].origin.files == ["SFT/math/math_v1.jsonl", "SFT/math/math_v1.1.jsonl"]
    assert len(catalogue["cosmopedia"].origin.files) == 8
    assert catalogue["fineweb_edu"].origin.files[-1] == "data/CC-MAIN-2024-10/*.parquet"
    assert catalogue["dolma_starcoder"].origin.urls == [
        "https://olmo-data.org/dolma-v1_7/starcoder/starcoder-{0000..0048}.json.gz"
    ]


def test_stand_ins_are_open_and_best_first():
    catalogue = load_catalogue()
    assert stand_ins("starcoder") == ["dolma_starcoder", "olmo_mix_starcoder"]
    assert stand_ins("algebraic_stack") == [
        "dolma_algebraic_stack", "olmo_mix_algebraic_stack", "algebraic_stack_parquet"
    ]  # fmt: skip
    for name, source in catalogue.items():
        if source.stand_in_for:
            assert source.gate is None and source.stand_in_for in catalogue, name


def test_unknown_names_get_the_nearest():
    with pytest.raises(UserError, match=r"no source is called 'fineweb-edu'\. Did you mean 'fineweb_edu'"):
        find_source("fineweb-edu")


def test_a_recipes_own_source_comes_first():
    own = load_catalogue()["gsm8k"]
    assert find_source("starcoder", {"starcoder": own}) is own


ENTRY = """{name}:
  title: T
  origin: {{kind: files, paths: [a.jsonl]}}
  adapter: {adapter}
  licence: MIT
"""


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a.yaml": ENTRY.format(name="x", adapter="{shape: field, feild: t}")},
            r"catalogue/a\.yaml: source 'x': key 'adapter\.field\.feild': unknown key",
        ),
        ({"a.yaml": ENTRY.format(name="x", adapter="{shape: fields}")}, r"a\.yaml: source 'x': key 'adapter'"),
        (
            {"a.yaml": ENTRY.format(name="x", adapter="{}"), "b.yaml": ENTRY.format(name="x", adapter="{}")},
            r"b\.yaml: source 'x' is already defined in a\.yaml",
        ),
        (
            {"a.yaml": ENTRY.format(name="x", adapter="{shape: field}") + "  stand_in_for: y\n"},
            "stand_in_for names 'y', which is no source",
        ),
    ],
)
def test_mistakes_in_a_catalogue_name_file_source_and_key(tmp_path, files, message):
    folder = tmp_path / "catalogue"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text.replace("adapter: {}", "adapter: {shape: field}"))
    with pytest.raises(UserError, match=message):
        read_catalogue(folder)
