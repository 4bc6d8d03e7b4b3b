"""`corpus.plan`: what a recipe needs, from catalogue and recipe alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from corpus.plan import main
from corpus.recipe.estimate import make_estimate
from corpus.recipe.model import Recipe, load_recipe
from corpus.report.estimate import hours, notes

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"


def small_recipe(tmp_path, **entry):
    text = {
        "name": "small", "family": "r1", "phase": "phase2", "summary": "s",
        "tokenizer": {"kind": "llama-models", "name": "llama3"},
        "seq_len": 2048, "boundary": "bos", "tokens": 2048 * 1_000_000,
        "mixture": {
            "web": {"source": "fineweb_edu", "weight": 3},
            "math": {"source": "natural_reasoning", "weight": 1, **entry},
        },
        "training": {
            "global_batch": 1, "optimizer": {"lr": 1e-3},
            "schedule": {"kind": "linear", "warmup_steps": 1, "final_fraction": 0.1},
        },
    }  # fmt: skip
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(text))
    return path


def run(capsys, *argv):
    try:
        main([str(word) for word in argv])
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_planned(capsys, path):
    code, out, _ = run(capsys, path, "--rate", "60", "--json")
    plan = json.loads(out)
    recipe = load_recipe(path)
    assert code == 0
    assert sum(source["tokens_drawn"] for source in plan["sources"].values()) == recipe.tokens == plan["tokens"]
    for source in plan["sources"].values():
        assert (source["epochs"] is None) == (source["tokens_available"] is None)


def test_phase_two_in_figures(capsys):
    code, out, _ = run(capsys, RECIPES / "r1_phase2.yaml", "--rate", "60")
    assert code == 0
    assert "38.83 !" in out and "37.05 !" in out
    assert "Weights sum to 99.99; each was divided by that sum." in out
    assert "https://huggingface.co/datasets/bigcode/starcoderdata; ungated stand-in: dolma_starcoder" in out
    assert "Do not publish: natural_reasoning (CC-BY-NC-4.0)." in out
    assert "to tokenise at 60 MB/s (as given)" in out


def test_unknown_sizes_are_said_to_be_unknown(capsys):
    _, out, _ = run(capsys, RECIPES / "r1_sft_reasoning.yaml", "--rate", "60")
    assert "?" in out and ">" in out


@pytest.mark.parametrize(("allowed", "code"), [(0.2, 2), (0.3, 0)])
def test_a_mix_beyond_its_max_epochs_is_refused(tmp_path, capsys, allowed, code):
    path = small_recipe(tmp_path, max_epochs=allowed)
    got, _, err = run(capsys, path, "--rate", "60")
    assert got == code
    if code:
        assert err == (
            "error: recipe 'small': key 'mixture.math.max_epochs': the phase would repeat 'math' 0.28 times, more than "
            "max_epochs 0.2. Lower its weight or the phase's tokens, add data, or raise max_epochs.\n"
        )


def test_an_estimate_only_warns(tmp_path, capsys):
    path = small_recipe(tmp_path, max_epochs=2)
    path.write_text(path.read_text().replace("natural_reasoning", "gsm8k"))
    code, out, _ = run(capsys, path, "--rate", "60")
    assert code == 0
    assert "Warning: by our estimate 'math' is repeated 487.6 times, more than its max_epochs 2" in out


def test_stand_ins_replace_gated_sources_only_when_asked(capsys):
    _, plain, _ = run(capsys, RECIPES / "r1_phase1.yaml", "--rate", "60", "--json")
    _, swapped, _ = run(capsys, RECIPES / "r1_phase1.yaml", "--rate", "60", "--json", "--stand-ins")
    plain, swapped = json.loads(plain), json.loads(swapped)
    assert plain["replaced"] == {} and plain["sources"]["starcoder"]["gate"]
    assert swapped["replaced"] == {"starcoder": "dolma_starcoder"}
    assert swapped["sources"]["starcoder"]["source"] == "dolma_starcoder"
    assert all(source["gate"] is None for source in swapped["sources"].values())


def test_mistakes_are_one_line(tmp_path, capsys):
    code, _, err = run(capsys, tmp_path / "none.yaml")
    assert code == 2 and err.count("\n") == 1 and "no such file" in err
    path = small_recipe(tmp_path)
    path.write_text(path.read_text().replace("fineweb_edu", "fineweb-edu"))
    code, _, err = run(capsys, path, "--rate", "60")
    assert (code, err) == (2, "error: no source is called 'fineweb-edu'. Did you mean 'fineweb_edu'?\n")
    assert run(capsys)[0] == 2
    assert run(capsys, RECIPES / "sample.yaml", "--rate", "0")[0] == 2


def test_the_rate_is_measured_when_none_is_given(capsys):
    code, out, _ = run(capsys, RECIPES / "sample.yaml", "--json")
    plan = json.loads(out)
    assert code == 0 and plan["rate"] > 0.1 and plan["rate_note"].startswith("measured with ")
    assert plan["sources"]["code"]["tokens_available"] > 100_000


def test_notes_group_licences():
    recipe = Recipe.model_validate(
        json.loads(json.dumps(load_recipe(RECIPES / "r1_mid2.yaml").model_dump(mode="json")))
    )
    lines = notes(make_estimate(recipe, rate=100, bandwidth=100))
    assert "Licence: CC-BY-SA-4.0: arc_easy, arc_challenge." in lines
    assert [hours(value) for value in (0.5, 5, 100)] == ["30 minutes", "5.0 hours", "4.2 days"]


def test_the_commands_start_light():
    code = (
        "import sys, corpus.plan, corpus.sources, corpus.recipe.published, corpus.documents.joins\n"
        "print([name for name in ('torch', 'streaming', 'composer', 'pyarrow', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
