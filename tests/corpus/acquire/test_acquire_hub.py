"""Hub repositories over a real connection: listing, resume, retries, verification, gates."""

from __future__ import annotations

import random
import time
from email.utils import formatdate

import pytest

from corpus.acquire import AcquireConfig, check, fetch, list_files, preflight, transfer
from corpus.acquire.origins import HubOrigin
from corpus.acquire.transfer import Job, download
from corpus.base.errors import UserError

BIG = random.Random(1).randbytes(3 << 20)
SMALL = b'{"text": "small"}\n'


def toy(revision: str = "main", files: tuple[str, ...] = ("data/*",), repo: str = "org/name") -> HubOrigin:
    return HubOrigin(repo=repo, revision=revision, files=list(files))


def test_listing_resolves_the_commit_and_is_cached_per_commit(hub, config, make_source):
    hub.page = 2
    files = {f"data/{number}.jsonl": b"%d" % number for number in range(5)}
    commit = hub.add_dataset("org/name", {**files, "data/deep/x.jsonl": b"x", "README.md": b"hi"})
    listing = list_files(make_source(toy(files=("data/*.jsonl",))), config)
    assert listing.revision == commit
    assert [file.name for file in listing.files] == sorted(files)
    pages = hub.count("/tree/")
    assert pages == 3  # of two entries each, and only of the folder asked for
    assert list_files(make_source(toy(commit)), config).files == listing.files
    assert hub.count("/tree/") == pages
    offline = AcquireConfig(cache=config.cache, offline=True)
    assert list_files(make_source(toy()), offline).files == listing.files
    with pytest.raises(UserError, match=r"never listed.*without --offline"):
        list_files(make_source(toy(files=("**",))), offline)


def test_files_arrive_whole_and_are_not_fetched_twice(hub, config, make_source):
    hub.add_dataset("org/name", {"data/big": BIG, "data/small": SMALL, "data/empty": b""})
    source = make_source(toy())
    listing = list_files(source, config)
    assert [file.digest.split(":")[0] for file in listing.files] == ["sha256", "git", "git"]
    for _ in range(2):
        contents = [fetch(source, listing, file, config).read_bytes() for file in listing.files]
        assert contents == [BIG, b"", SMALL]
    assert hub.sent("data/") == len(BIG) + len(SMALL)
    assert not list((config.cache / "partial").iterdir())
    assert fetch(source, listing, listing.files[0], config).relative_to(config.cache).parts[:3] == (
        "datasets", "org", "name",
    )  # fmt: skip


def test_a_cut_connection_is_continued_where_it_stopped(hub, config, make_source):
    hub.add_dataset("org/name", {"data/big": BIG})
    source = make_source(toy())
    listing = list_files(source, config)
    hub.faults.cut("/lfs/", after=1_000_000)
    hub.faults.cut("/lfs/", after=500_000)
    assert fetch(source, listing, listing.files[0], config).read_bytes() == BIG
    assert hub.sent("/lfs/") == len(BIG)
    assert [r.range for r in hub.requests if "/lfs/" in r.path] == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_later_run_continues_the_partial_file(hub, config, make_source, monkeypatch):
    hub.add_dataset("org/name", {"data/big": BIG})
    source = make_source(toy())
    listing = list_files(source, config)
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    hub.faults.cut("/lfs/", after=2_000_000)
    with pytest.raises(UserError, match="Toy: data/big: gave up after 1 attempts"):
        fetch(source, listing, listing.files[0], config)
    assert fetch(source, listing, listing.files[0], config).read_bytes() == BIG
    assert hub.sent("/lfs/") == len(BIG)


@pytest.mark.parametrize("code", [429, 500, 502, 503])
def test_passing_failures_are_retried(hub, config, make_source, code):
    hub.add_dataset("org/name", {"data/big": BIG})
    source = make_source(toy())
    hub.faults.status("/tree/", code)
    listing = list_files(source, config)
    hub.faults.status("/resolve/", code)
    hub.faults.status("/lfs/", code)
    assert fetch(source, listing, listing.files[0], config).read_bytes() == BIG


def test_retry_after_is_honoured_as_seconds_and_as_date(hub, config, make_source):
    hub.add_dataset("org/name", {"data/a": SMALL, "data/b": SMALL})
    source = make_source(toy())
    listing = list_files(source, config)
    started = time.monotonic()
    hub.faults.status("data/a", 429, retry_after=1)
    fetch(source, listing, listing.files[0], config)
    assert time.monotonic() - started >= 1
    hub.faults.status("data/b", 429, retry_after=formatdate(time.time() + 7200, usegmt=True))
    with pytest.raises(UserError, match="asks to wait 7"):
        fetch(source, listing, listing.files[1], config)


def test_retries_end(hub, config, make_source):
    hub.add_dataset("org/name", {"data/a": SMALL})
    source = make_source(toy())
    listing = list_files(source, config)
    hub.faults.status("data/a", 503, times=99)
    with pytest.raises(UserError, match=r"Toy: data/a: gave up after 6 attempts: 127.0.0.1 answered 503"):
        fetch(source, listing, listing.files[0], config)
    assert hub.count("data/a") == 6


def test_wrong_bytes_once_are_fetched_again_and_twice_are_refused(hub, config, make_source):
    hub.add_dataset("org/name", {"data/big": BIG, "data/small": SMALL})
    source = make_source(toy())
    listing = list_files(source, config)
    hub.faults.corrupt("/lfs/")
    assert fetch(source, listing, listing.files[0], config).read_bytes() == BIG
    hub.faults.corrupt("data/small", times=2)
    with pytest.raises(UserError, match=r"Toy: data/small: has git .* instead of"):
        fetch(source, listing, listing.files[1], config)
    assert not (config.cache / f"datasets/org/name/{listing.revision}/data/small").exists()
    hub.add_dataset("org/lies", {"data/big": BIG}, hashes={"data/big": "0" * 64})
    lies = make_source(toy(repo="org/lies"))
    listing = list_files(lies, config)
    with pytest.raises(UserError, match="data/big: has sha256"):
        fetch(lies, listing, listing.files[0], config)


def test_a_damaged_partial_file_does_not_poison_the_download(hub, config, make_source, monkeypatch):
    hub.add_dataset("org/name", {"data/big": BIG})
    source = make_source(toy())
    listing = list_files(source, config)
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    hub.faults.cut("/lfs/", after=1_000_000)
    with pytest.raises(UserError):
        fetch(source, listing, listing.files[0], config)
    (partial,) = (config.cache / "partial").glob("*.part")
    partial.write_bytes(bytes(1_000_000))
    assert fetch(source, listing, listing.files[0], config).read_bytes() == BIG


def test_the_token_goes_to_the_hub_alone_and_is_never_shown(hub, config, make_source, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.tokens.add("hf_secret")
    hub.add_dataset("org/name", {"data/big": BIG}, gated=True)
    source = make_source(toy())
    listing = list_files(source, config)
    hub.faults.status("/lfs/", 503)
    fetch(source, listing, listing.files[0], config)
    assert {r.token for r in hub.requests if "/resolve/" in r.path} == {"hf_secret"}
    assert {r.token for r in hub.requests if "/lfs/" in r.path} == {None}
    hub.faults.status("data/", 400, times=9)
    assert "hf_secret" not in str(check(source, config)) + caplog.text
    kept = [path.read_bytes() for path in config.cache.rglob("*.json")]
    assert not any(b"hf_secret" in data for data in kept)


def test_preflight_names_every_source_that_cannot_be_read_at_once(hub, config, make_source):
    hub.add_dataset("org/open", {"data/a": SMALL})
    hub.add_dataset("org/gated", {"data/a": SMALL}, gated=True)
    hub.add_dataset("org/hidden", {"data/a": SMALL}, gated=True, hide_tree=True)
    sources = {
        "open": make_source(toy(repo="org/open")),
        "gated": make_source(toy(repo="org/gated"), gate="https://accept.example/gated"),
        "hidden": make_source(toy(repo="org/hidden")),
        "absent": make_source(toy(repo="org/absent")),
        "empty": make_source(toy(repo="org/open", files=("none/*",))),
    }
    with pytest.raises(UserError) as caught:
        preflight(sources, config)
    message = caught.value.one_line()
    assert "4 of 5 sources cannot be read" in message
    assert "gated: access must be requested (Accept the terms at https://accept.example/gated)" in message
    assert (
        "hidden: access must be requested (Accept the terms at https://huggingface.co/datasets/org/hidden)" in message
    )
    assert "absent: no such repository, or it is private" in message
    assert "empty: no file matches 'none/*'" in message
    assert message.count("hf auth login") == 1
    assert hub.sent("") == 0
    preflight({"open": sources["open"]}, config)
    opened = make_source(toy(list_files(sources["open"], config).revision, repo="org/open"))
    listing = list_files(opened, config)
    hub.faults.status("org/open", 404, times=99)
    with pytest.raises(UserError, match="1 of 1 sources cannot be read: open: the server answered 404"):
        preflight({"open": opened}, config)
    hub.faults.clear()
    fetch(opened, listing, listing.files[0], config)
    hub.faults.status("org/open", 404, times=99)
    preflight({"open": opened}, config)  # all of it is here
    gated = check(sources["gated"], config)
    assert (gated.gated, gated.files, gated.bytes) == (True, 1, len(SMALL))
    listing = list_files(sources["gated"], config)
    with pytest.raises(UserError, match=r"access must be requested.*accept.example"):
        fetch(sources["gated"], listing, listing.files[0], config)


def test_unknown_revisions_and_unreachable_hubs(hub, config, make_source, monkeypatch):
    hub.add_dataset("org/name", {"data/a": SMALL})
    assert "has no revision 'v9'" in (check(make_source(toy("v9")), config).problem or "")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = check(make_source(toy()), config)
    assert not result.reachable
    assert result.problem == "127.0.0.1:9 cannot be reached: connection refused"


@pytest.mark.parametrize("name", ["data/../../../etc/passwd", "data/a\\b", "data/a\0b"])
def test_hostile_names_in_a_listing_are_refused(hub, config, make_source, name):
    hub.add_dataset("org/name", {name: SMALL, "data/fine": SMALL})
    with pytest.raises(UserError, match="refusing the file name"):
        list_files(make_source(toy(files=("data/**",))), config)
    # A bad name beside the files asked for is nobody's business.
    assert len(list_files(make_source(toy(files=("data/fine",))), config).files) == 1


def test_a_symlink_in_the_cache_does_not_lead_a_download_out_of_it(hub, config, make_source, tmp_path):
    hub.add_dataset("org/name", {"data/a": SMALL})
    source = make_source(toy())
    listing = list_files(source, config)
    (config.cache / "datasets").mkdir()
    (tmp_path / "outside").mkdir()
    (config.cache / "datasets/org").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="a symlink leads out"):
        fetch(source, listing, listing.files[0], config)
    assert not list((tmp_path / "outside").iterdir())


def test_a_full_disk_is_an_error_naming_the_folder(hub, config, make_source, tmp_path):
    hub.add_dataset("org/name", {"data/big": BIG})
    source = make_source(toy())
    listing = list_files(source, config)
    file = listing.files[0]

    from corpus.acquire.disk import Partial
    from corpus.acquire.remote import _opener

    full = tmp_path / "partial/x.part"
    full.parent.mkdir()
    full.symlink_to("/dev/full")
    with pytest.raises(UserError, match=f"{full.parent}: no space left"):
        download(Job(_opener(source, file, "x"), tmp_path / "target", Partial(full), file.size, file.digest, "x"))
