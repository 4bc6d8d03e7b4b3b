"""Adapters: every shape on records as the datasets have them (invented values), and what becomes of malformed ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from corpus.catalogue.load import load_catalogue
from corpus.documents.adapters import Adapter
from corpus.documents.fields import top_level
from corpus.documents.record import BadRecord

ADAPTER = TypeAdapter(Adapter)


def text_of(record, **settings):
    return ADAPTER.validate_python(settings).function()(record)


def reason(record, **settings):
    with pytest.raises(BadRecord) as caught:
        text_of(record, **settings)
    return caught.value.reason


def of(source):
    return load_catalogue()[source].adapter.function()


CHAT = [{"role": "user", "content": "2+2?"}]

GOOD = [
    (
        "starcoder",
        {"max_stars_repo_path": "src/a.py", "max_stars_count": None, "id": "17", "content": "def f():\n  return 1\n"},
        "def f():\n  return 1\n",
    ),
    ("open_web_math", {"url": "http://a", "text": "Let x=2", "date": "2020", "metadata": '{"a": 1}'}, "Let x=2"),
    ("dolmino_math", {"id": "1", "text": "1+1=2", "source": "x", "metadata": {"a": [1]}, "attributes": {}}, "1+1=2"),
    (
        "nemotron_math",
        {"input": CHAT, "output": "<think>add</think>4", "category": "math", "system_prompt": "detailed thinking on"},
        "User: 2+2?\n\nAssistant: <think>add</think>4",
    ),
    (
        "natural_reasoning",
        {"question": "Why?", "reference_answer": "", "responses": [{"response_model": "m", "response": "Because."}]},
        "Question: Why?\n\nAnswer: Because.",
    ),
    (
        "natural_reasoning",
        {"question": "Why?", "reference_answer": "So.", "responses": []},
        "Question: Why?\n\nAnswer: So.",
    ),
    (
        "trivia_qa",
        {"question": "Who?", "question_id": "1", "answer": {"value": "Ann", "aliases": ["A."]}},
        "Question: Who?\nAnswer: Ann",
    ),
    ("natural_questions", {"question": "who won", "answer": ["ann", "bob"]}, "Question: who won?\nAnswer: ann"),
    (
        "openbookqa",
        {"question_stem": "Ice is", "choices": {"text": ["hot", "cold"], "label": ["A", "B"]}, "answerKey": "B"},
        "Ice is cold",
    ),
    (
        "arc_easy",
        {"question": "Which?", "choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "answerKey": "3"},
        "Question: Which?\nAnswer: z",
    ),
    (
        "arc_challenge",
        {"question": "Which?", "choices": {"text": list("vwxyz"), "label": list("ABCDE")}, "answerKey": "E"},
        "Question: Which?\nAnswer: z",
    ),
    (
        "piqa",
        {"goal": "Open a jar", "sol1": "shout", "sol2": "turn the lid", "label": "1"},
        "Question: Open a jar\nAnswer: turn the lid",
    ),
    (
        "gsm8k",
        {"question": "2 times 3?", "answer": "It is 2*3=<<2*3=6>>6.\n#### 6"},
        "Question: 2 times 3?\nAnswer: It is 2*3=6.\n#### 6",
    ),
    (
        "boolq",
        {"question": "is ice cold", "passage": "Ice is frozen water.", "answer": True},
        "Ice is frozen water.\nQuestion: is ice cold?\nAnswer: Yes",
    ),
    (
        "tulu3_sft_olmo2",
        {
            "id": "1",
            "messages": [{"role": "system", "content": "Be kind."}, *CHAT, {"role": "assistant", "content": "4"}],
        },
        "System: Be kind.\n\nUser: 2+2?\n\nAssistant: 4",
    ),
    (
        "open_math_reasoning",
        {"problem": "2+2?", "generated_solution": "<think>..</think>4", "pass_rate_72b_tir": "n/a"},
        "User: 2+2?\n\nAssistant: <think>..</think>4",
    ),
    (
        "open_science_reasoning_2",
        {"input": "Pick.", "output": "A", "expected_answer": "A"},
        "User: Pick.\n\nAssistant: A",
    ),
    (
        "open_code_reasoning_2",
        {"question": "Sort.", "r1_generation": "sorted(x)"},
        "User: Sort.\n\nAssistant: sorted(x)",
    ),
]


@pytest.mark.parametrize(("source", "record", "text"), GOOD, ids=[f"{row[0]}-{n}" for n, row in enumerate(GOOD)])
def test_catalogue_adapters_on_records_of_their_source(source, record, text):
    assert of(source)(record) == text
    assert of(source)(top_level(record, load_catalogue()[source].adapter.needs())) == text


BAD = [
    ("starcoder", {"text": "x"}, "missing_field"),
    ("starcoder", {"content": None}, "not_text"),
    ("nemotron_math", {"input": [], "output": "4"}, "no_messages"),
    ("nemotron_math", {"input": "2+2?", "output": "4"}, "no_messages"),
    ("nemotron_math", {"input": CHAT, "output": " "}, "empty_answer"),
    ("nemotron_math", {"input": CHAT}, "missing_field"),
    ("nemotron_math", {"input": ["hello"], "output": "4"}, "not_a_message"),
    ("nemotron_math", {"input": [{"role": "owner", "content": "x"}], "output": "4"}, "unknown_role"),
    ("tulu3_sft_olmo2", {"messages": [{"role": "user", "content": None}]}, "not_text"),
    ("tulu3_sft_olmo2", {"messages": [{"content": "x"}]}, "missing_field"),
    ("natural_reasoning", {"question": "Why?", "responses": [], "reference_answer": ""}, "empty_answer"),
    ("natural_reasoning", {"question": "Why?"}, "missing_field"),
    ("natural_reasoning", {"question": "\n", "reference_answer": "x"}, "empty_question"),
    ("natural_questions", {"question": "who", "answer": []}, "empty_answer"),
    ("natural_questions", {"question": "who", "answer": [3]}, "not_text"),
    ("trivia_qa", {"question": "Who?", "answer": "Ann"}, "missing_field"),
    ("arc_easy", {"question": "Q", "choices": {"text": ["x"], "label": ["A", "B"]}, "answerKey": "A"}, "bad_choices"),
    ("arc_easy", {"question": "Q", "choices": {"text": "x", "label": "A"}, "answerKey": "A"}, "bad_choices"),
    ("arc_easy", {"question": "Q", "choices": {"text": ["x"], "label": ["A"]}, "answerKey": "D"}, "unknown_answer_key"),
    (
        "arc_easy",
        {"question": "Q", "choices": {"text": ["x"], "label": ["A"]}, "answerKey": "yes"},
        "unknown_answer_key",
    ),
    ("arc_easy", {"question": "Q", "choices": {"text": [None], "label": ["A"]}, "answerKey": "A"}, "not_text"),
    ("arc_easy", {"question": "Q", "choices": {"text": [""], "label": ["A"]}, "answerKey": "A"}, "empty_answer"),
    ("arc_easy", {"question": "Q", "answerKey": "A"}, "missing_field"),
    ("boolq", {"question": "q", "passage": "p", "answer": "yes"}, "not_a_boolean"),
    ("boolq", {"question": "q", "passage": " ", "answer": True}, "empty_passage"),
    ("piqa", {"goal": "g", "sol1": "a", "sol2": "b", "label": "2"}, "unknown_answer_key"),
    ("piqa", {"goal": "g", "sol1": "a", "sol2": "b", "label": "-1"}, "unknown_answer_key"),
    ("piqa", {"label": "0"}, "missing_field"),
    ("open_math_reasoning", {"problem": "p", "generated_solution": ""}, "empty_answer"),
    ("open_code_reasoning_2", {"question": "-", "r1_generation": "x"}, "question_not_recovered"),
    ("open_code_reasoning_2", {"question": None, "r1_generation": "x"}, "not_text"),
]


@pytest.mark.parametrize(("source", "record", "why"), BAD)
def test_malformed_records_are_refused_by_reason(source, record, why):
    with pytest.raises(BadRecord) as caught:
        of(source)(record)
    assert caught.value.reason == why


def test_letters_and_numbers_stand_for_the_same_choice():
    record = {"question": "Q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "2"}
    assert text_of(record, shape="multiple_choice") == "Question: Q\nAnswer: y"
    record = {"question": "Q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "A"}
    assert text_of(record, shape="multiple_choice") == "Question: Q\nAnswer: x"


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip))
def test_templates_never_look_into_record_text(question, answer):
    record = {"question": question, "answer": answer}
    assert text_of(record, shape="question_answer") == f"Question: {question}\nAnswer: {answer}"


def test_hostile_braces_stay_as_they_are():
    hostile = {"question": "{answer} {0.__class__} {{question}}", "answer": "{question}%s"}
    text = text_of(hostile, shape="question_answer", template="{question}|{answer}")
    assert text == "{answer} {0.__class__} {{question}}|{question}%s"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{question} {anwser}", "template mentions {anwser}; it may mention {question} and {answer}"),
        ("{question}", "template never mentions {answer}"),
        ("{} {question} {answer}", "template mentions {}"),
    ],
)
def test_wrong_templates_are_refused(template, message):
    with pytest.raises(ValidationError, match=message.replace("{", r"\{").replace("}", r"\}")):
        ADAPTER.validate_python({"shape": "question_answer", "template": template})


def test_paths_descend_into_objects_and_lists_and_no_further():
    record = {"a": {"b": ["x", {"c": "deep"}]}}
    assert text_of(record, shape="field", field="a.b.1.c") == "deep"
    for path in ("a.b.2", "a.b.-1", "a.x", "a.b.0.c", "z"):
        assert reason(record, shape="field", field=path) == "missing_field"


def test_the_template_is_part_of_what_is_hashed():
    one = ADAPTER.validate_python({"shape": "question_answer"}).model_dump(mode="json")
    other = ADAPTER.validate_python({"shape": "question_answer", "template": "{question} {answer}"}).model_dump(
        mode="json"
    )
    assert one != other
