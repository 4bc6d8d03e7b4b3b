"""Which units of a stream are made, and which are to be made next: all, or under a token limit a sample of them."""

from __future__ import annotations

from collections.abc import Iterable

from corpus.base.errors import UserError
from corpus.base.files import read_json
from corpus.documents.sampling import expected_ids, piece_bytes
from corpus.documents.units import Unit
from corpus.records.stream import UnitRecord
from corpus.streams.plan import UNIT_FILE, StreamPlan

LEAST_YIELD = 0.05
"""Where the units made so far gave less of what was expected than this, the next are chosen as if they gave so much."""


def finished_units(plan: StreamPlan) -> set[int]:
    """Indices of the units already on disk."""
    units = plan.folder / "units"
    return {int(entry.name) for entry in units.iterdir() if entry.name.isdigit()} if units.is_dir() else set()


def unit_record(plan: StreamPlan, unit: Unit) -> UnitRecord:
    """What a unit on disk says of itself; raises UserError when it says nothing."""
    return UnitRecord.model_validate(read_json(plan.unit_folder(unit) / UNIT_FILE))


def is_made(plan: StreamPlan, unit: Unit) -> bool:
    """Whether a unit on disk has its record and, in a sample, as much as each unit is to give."""
    try:
        record = unit_record(plan, unit)
    except UserError:
        return False
    return plan.sample is None or record.complete or ids_of(record) >= plan.unit_cap()


def ids_of(record: UnitRecord) -> int:
    """All ids of a unit, those in its tail included."""
    return record.tokens.text + record.tokens.boundary


def units_to_make(plan: StreamPlan) -> list[Unit]:
    """The missing units that are to be made next.

    Under a token limit these are the first few only, enough of them to reach it by what the units made so far gave.
    """
    done = finished_units(plan)
    if plan.sample is None or plan.token_limit is None:
        return [unit for unit in plan.units if unit.index not in done]
    have = {
        unit.index: ids_of(unit_record(plan, unit)) for unit in plan.units if unit.index in done and is_made(plan, unit)
    }
    cap = plan.unit_cap()
    expected = {unit.index: _expected(plan, unit, cap) for unit in plan.units if unit.index in have}
    gives = max(LEAST_YIELD, min(1.0, sum(have.values()) / max(1, sum(expected.values())))) if have else 1.0
    reached = 0.0
    chosen: list[Unit] = []
    for unit in plan.units:
        if reached >= plan.token_limit:
            break
        if unit.index in have:
            reached += have[unit.index]
        else:
            chosen.append(unit)
            reached += gives * _expected(plan, unit, cap)
    return chosen


def _expected(plan: StreamPlan, unit: Unit, cap: int) -> int:
    """About how many ids a sample gets of a unit."""
    held = 0
    for piece in unit.pieces:
        stored = piece_bytes(piece, plan.file_sizes[piece.file]) or plan.unit_bytes
        held += expected_ids(stored, piece.file, plan.source.format, plan.source.approx_bytes_per_token)
    return max(1, min(cap, held))


def is_short(plan: StreamPlan) -> bool:
    """Whether a sample took what it takes of each unit, missed its limit, and some units hold more."""
    if plan.sample is None or plan.token_limit is None or units_to_make(plan):
        return False
    records = [unit_record(plan, unit) for unit in chosen_units(plan)]
    return sum(map(ids_of, records)) < plan.token_limit and not all(record.complete for record in records)


def chosen_units(plan: StreamPlan) -> Iterable[Unit]:
    """All units, or the shortest run of them that reaches the token limit."""
    have = 0
    for unit in plan.units:
        if plan.token_limit is not None and have >= plan.token_limit:
            return
        yield unit
        if plan.token_limit is not None:
            have += ids_of(unit_record(plan, unit))
