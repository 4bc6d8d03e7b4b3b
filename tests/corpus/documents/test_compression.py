"""Compressed files: what follows the first stream is read whole or refused, and a limit is never told as damage."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from corpus.base.errors import UserError
from corpus.cleaning.decontamination.evalsets import read_examples
from corpus.documents.compression import _StreamsFile, open_decompressed
from corpus.documents.read import read_piece
from corpus.documents.units import WHOLE
from tests.conftest import environment

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
LINES = "".join(json.dumps({"text": f"document {n} " + "y" * (n % 50)}) + "\n" for n in range(500)).encode()


def texts(path: Path, file_format: str = "jsonl") -> list[str]:
    return [record["text"] for _, record in read_piece(path, path.name, file_format, 0, WHOLE, None)]  # type: ignore


def flipped(data: bytes, place: int) -> bytes:
    """One bit of the data turned."""
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda second: second[: len(second) // 2],
    "header only": lambda second: second[:3],
    "header": lambda second: flipped(second, 0),
    "inside": lambda second: flipped(second, len(second) // 2),
    "checksum": lambda second: flipped(second, len(second) - (20 if second.startswith(b"\xfd7zXZ") else 4)),
    "trailing garbage": lambda second: second + b"garbage",
    "one byte more": lambda second: second + b"x",
}


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file_format", ["jsonl", "text"])
def test_a_damaged_later_stream_is_refused(tmp_path: Path, ending: str, damage: str, file_format: str) -> None:
    packed = PACK[ending](LINES)
    path = tmp_path / f"two.x{ending}"
    path.write_bytes(packed + DAMAGE[damage](packed))
    with pytest.raises(UserError, match=rf"two\.x{ending}: the file is cut off or damaged"):
        texts(path, file_format)


@pytest.mark.parametrize("ending", PACK)
def test_streams_empty_ones_among_them_are_read_whole(tmp_path: Path, ending: str) -> None:
    pack = PACK[ending]
    path = tmp_path / f"many.jsonl{ending}"
    path.write_bytes(b"".join(pack(part) for part in (b"", LINES, b"", b"", LINES[:100], LINES[100:], b"")))
    assert texts(path) == 2 * [json.loads(line)["text"] for line in LINES.splitlines()]


def test_padding_of_xz_is_of_whole_blocks(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.xz"
    path.write_bytes(lzma.compress(LINES) + bytes(8) + lzma.compress(LINES) + bytes(4))
    assert len(texts(path)) == 1000
    path.write_bytes(lzma.compress(LINES) + bytes(6))
    with pytest.raises(UserError, match="damaged"):
        texts(path)
    path = tmp_path / "x.jsonl.bz2"
    path.write_bytes(bz2.compress(LINES) + bytes(8))
    with pytest.raises(UserError, match="damaged"):
        texts(path)


@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
def test_streams_may_be_cut_anywhere_when_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr("corpus.documents.compression.PIECE", piece)
    monkeypatch.setattr("corpus.documents.compression.ZSTD_PIECE", piece)
    for ending, pack in PACK.items():
        path = tmp_path / f"x{ending}"
        path.write_bytes(pack(LINES[:3000]) + pack(b"") + pack(LINES[3000:]))
        with open_decompressed(path, path.name) as stream:
            assert stream.read() == LINES


def test_much_in_little_is_unpacked_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "zeros.bz2"
    path.write_bytes(bz2.compress(bytes(20_000_000)))
    buffer = bytearray(1000)
    with _StreamsFile(path, bz2.BZ2Decompressor, padding=0) as file:
        assert file.readinto(buffer) == 1000


@pytest.mark.parametrize("ending", [".bz2", ".xz"])
def test_a_damaged_evaluation_set_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"set.jsonl{ending}"
    packed = PACK[ending](LINES)
    path.write_bytes(packed + flipped(packed, len(packed) // 2))
    with pytest.raises(UserError, match="cut off or damaged"):
        list(read_examples(path, ["text"]))


def long_window(data: bytes, log: int) -> bytes:
    """A zstd frame that asks for a window of 2**log bytes and does not say how large its content is."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=log, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(data) + packer.flush()


def test_a_window_of_two_gigabytes_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl.zst"
    path.write_bytes(long_window(LINES, 31) + zstandard.compress(LINES))
    assert len(texts(path)) == 1000


def test_a_larger_window_and_a_dictionary_are_told_as_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl.zst"
    frame = bytearray(long_window(LINES, 31))
    frame[5] = (34 - 10) << 3  # the byte of the header that asks for the window
    path.write_bytes(zstandard.compress(LINES) + frame)
    with pytest.raises(UserError, match=r"long.*a window of 17,179,869,184 bytes.* 2 GiB") as error:
        texts(path)
    assert "damaged" not in str(error.value)
    words = zstandard.train_dictionary(2000, [f"some words {n} and more".encode() * 3 for n in range(2000)])
    path.write_bytes(zstandard.ZstdCompressor(dict_data=words).compress(LINES))
    with pytest.raises(UserError, match="zstd dictionary"):
        texts(path)


READ = """
import resource, sys
from pathlib import Path
from corpus.base.errors import UserError
from corpus.documents.read import read_piece
path = Path(sys.argv[1])
import zstandard
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (512 << 20), resource.RLIM_INFINITY))
try:
    print(len(list(read_piece(path, path.name, "jsonl", 0, -1, None))))
except UserError as error:
    print(error)
"""


def test_too_little_memory_is_not_told_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl.zst"
    path.write_bytes(long_window(LINES, 31))
    command = [sys.executable, "-c", READ, str(path)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert "window of 2,147,483,648 bytes" in result.stdout and "memory" in result.stdout, result.stderr
    assert "damaged" not in result.stdout
