"""What workers that Ray starts are told of the build's shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corpus.pipeline.environment import FILE, leave_environment
from corpus.pipeline.marks import OWNER
from tests.conftest import environment

TOLD = {
    "HF_TOKEN": "hf_secret", "HF_ENDPOINT": "https://hub.example", "AWS_SECRET_ACCESS_KEY": "key",
    "no_proxy": "localhost", "HTTPS_PROXY": "http://proxy:1", "REQUESTS_CA_BUNDLE": "/etc/ca.pem",
    "CORPUS_URLS_ENDPOINT": "http://relay",
}  # fmt: skip


def test_a_worker_gets_what_it_needs_to_fetch_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TOLD.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UNRELATED_SECRET", "no")
    monkeypatch.setenv(OWNER, "1")
    before = os.umask(0)
    try:
        path = leave_environment(tmp_path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    for name in TOLD:
        monkeypatch.delenv(name)
    monkeypatch.delenv("UNRELATED_SECRET")
    monkeypatch.delenv(OWNER)
    code = (
        "import json, os, sys; from pathlib import Path; from corpus.pipeline.environment import take_environment; "
        "take_environment(Path(sys.argv[1])); print(json.dumps(dict(os.environ)))"
    )
    worker = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment(), capture_output=True, text=True, check=True
    )
    got = json.loads(worker.stdout)
    assert {name: got.get(name) for name in TOLD} == TOLD
    assert "UNRELATED_SECRET" not in got and OWNER not in got


def test_a_login_of_the_home_folder_goes_along(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("hf_stored")
    code = (
        "import sys; from pathlib import Path; from corpus.pipeline.environment import leave_environment; "
        "print(leave_environment(Path(sys.argv[1])).read_text())"
    )
    variables = {name: value for name, value in environment().items() if name != "HF_TOKEN"}
    build = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**variables, "HF_HOME": str(tmp_path / "home")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert '"HF_TOKEN": "hf_stored"' in build.stdout
    assert (tmp_path / FILE).is_file()
