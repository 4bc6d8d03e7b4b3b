"""JSON with many rows: the same value as the library writes, a row a line."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.base.files import write_json_rows

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=4), st.lists(VALUES, max_size=5))
def test_rows_are_written_one_a_line_and_read_back(tmp_path: Path, data: dict[str, object], rows: list[object]) -> None:
    data.pop("rows", None)
    path = tmp_path / "rows.json"
    write_json_rows(path, data, "rows", iter(rows))
    text = path.read_bytes().decode()
    assert json.loads(text) == {**data, "rows": rows}
    assert list(json.loads(text)) == [*data, "rows"]
    assert len(text.splitlines()) >= len(rows) + 4
