"""Dataset repositories of the Hugging Face Hub, read raw at one commit."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from corpus import __version__
from corpus.acquire import http, network
from corpus.acquire.disk import read_note, short_hash, write_note
from corpus.acquire.models import AcquireConfig, Listing, SourceFile, listing_of
from corpus.acquire.names import safe_name, select, static_prefix
from corpus.acquire.origins import HubOrigin
from corpus.acquire.transfer import AccessDenied, Retry, retrying
from corpus.base.errors import UserError

WITHOUT_NETWORK = "Read copies with --mirror DIR, or what was downloaded before with --offline."
LOGIN = "Log in with `hf auth login` or set HF_TOKEN"


def endpoint() -> str:
    """The hub in use: HF_ENDPOINT, or the public one. Read on each call, so that a test can point it elsewhere."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def headers() -> dict[str, str]:
    """Request headers with the token of the standard places, if there is one. Never log them."""
    from huggingface_hub.utils import build_hf_headers  # late: the import takes most of a second

    return dict(build_hf_headers(library_name="mobilecorpus", library_version=__version__))


def require() -> None:
    """Raise a UserError when the hub cannot be reached from here, or a setting keeps it from being."""
    for host, why in network.unreachable([endpoint()]).items():
        raise UserError(f"no hub can be reached: {host} ({why})", fix=WITHOUT_NETWORK)


def gate_url(origin: HubOrigin) -> str:
    """The page where access to a repository is requested."""
    return f"https://huggingface.co/datasets/{origin.repo}"


def list_hub(origin: HubOrigin, config: AcquireConfig, where: str) -> Listing:
    """The files the origin's globs match, with size and content hash; cached per commit."""
    commit = _commit(origin, config, where)
    known: dict[str, tuple[int, str]] = {}
    for folder, deep in sorted(_folders(origin.files)):
        known.update(_tree(origin, commit, folder, deep, config, where))
    names = select(sorted(known), origin.files, origin.exclude, where)
    files = (_file(origin, commit, name, *known[name], where) for name in names)
    return listing_of(files, commit, [(origin.repo, commit)])


def _file(origin: HubOrigin, commit: str, name: str, size: int, digest: str, where: str) -> SourceFile:
    from huggingface_hub import hf_hub_url

    safe_name(name, where)
    url = hf_hub_url(origin.repo, name, repo_type="dataset", revision=commit, endpoint=endpoint())
    return SourceFile(name, url, size, digest)


def _folders(patterns: list[str]) -> set[tuple[str, bool]]:
    """The folders to list, and whether with all below: listing less matters in repositories of 10,000s of files."""
    wanted = set()
    for pattern in patterns:
        folder = static_prefix(pattern)
        rest = pattern[len(folder) :].lstrip("/")
        wanted.add((folder, "/" in rest or "**" in rest))
    deep = {folder for folder, below in wanted if below}
    covered = {
        (folder, below)
        for folder, below in wanted
        if any(folder != top and (not top or folder.startswith(f"{top}/")) for top in deep)
        or (not below and folder in deep)
    }
    return wanted - covered


def is_commit(revision: str) -> bool:
    """Whether a revision is a whole commit hash, which no branch can move."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def _commit(origin: HubOrigin, config: AcquireConfig, where: str) -> str:
    """The full commit hash the origin's revision stands for."""
    if is_commit(origin.revision):
        return origin.revision
    known = resolved(origin.repo, origin.revision, config.cache)
    # The first answer stays, so that the same command goes on with the same data however long it takes.
    if known is not None and (config.offline or not config.refresh):
        return str(known["commit"])
    if config.offline:
        raise UserError(f"revision '{origin.revision}' was never resolved here", where=where, fix=_go_online())
    info = _call(origin, where, lambda api: api.dataset_info(origin.repo, revision=origin.revision, timeout=60))
    if not isinstance(info.sha, str) or not is_commit(info.sha):
        raise UserError(f"the hub gave no commit for revision '{origin.revision}'", where=where)
    today = datetime.now(timezone.utc).date().isoformat()
    note = {"repo": origin.repo, "revision": origin.revision, "commit": info.sha, "resolved": today}
    write_note(_ref_note(origin.repo, origin.revision, config.cache), note)
    return info.sha


def resolved(repo: str, revision: str, cache: Path) -> dict[str, str] | None:
    """`commit` and `resolved` (the day) of a revision that was asked for before, or None."""
    known = read_note(_ref_note(repo, revision, cache))
    return known if isinstance(known, dict) and isinstance(known.get("commit"), str) else None


def _ref_note(repo: str, revision: str, cache: Path) -> Path:
    return cache / "listings" / "hub" / f"ref-{short_hash(f'{repo}@{revision}')}.json"


def known_listing(origin: HubOrigin, config: AcquireConfig, where: str) -> Listing | None:
    """What was listed of the origin on the hub before, or None; asks nobody."""
    try:
        return list_hub(origin, replace(config, offline=True), where)
    except UserError:
        return None


def _go_online() -> str:
    return "Run it once without --offline."


def _tree(
    origin: HubOrigin, commit: str, folder: str, deep: bool, config: AcquireConfig, where: str
) -> dict[str, tuple[int, str]]:
    """name -> (bytes, digest) of the files in one folder of the repository."""
    note = config.cache / "listings" / "hub" / f"{short_hash(f'{origin.repo}@{commit}/{folder} {deep}')}.json"
    known = read_note(note)
    if isinstance(known, dict) and isinstance(known.get("files"), dict):
        return {name: (size, digest) for name, (size, digest) in known["files"].items()}
    if config.offline:
        raise UserError(f"the files of {origin.repo} were never listed here", where=where, fix=_go_online())

    def whole(api: Any) -> dict[str, tuple[int, str]]:
        found = api.list_repo_tree(origin.repo, folder or None, recursive=deep, revision=commit, repo_type="dataset")
        return {entry.path: _size_and_digest(entry) for entry in found if hasattr(entry, "blob_id")}

    files = _call(origin, where, whole)
    note_data = {"repo": origin.repo, "commit": commit, "folder": folder, "files": files}
    write_note(note, note_data)
    return files


def _size_and_digest(entry: Any) -> tuple[int, str]:
    return (entry.lfs.size, f"sha256:{entry.lfs.sha256}") if entry.lfs else (entry.size, f"git:{entry.blob_id}")


def _call(origin: HubOrigin, where: str, action: Any) -> Any:
    """Run ``action`` on the hub's API with retries; its errors become ours, whichever transport the library uses."""
    from huggingface_hub import HfApi, errors

    api = HfApi(endpoint=endpoint(), library_name="mobilecorpus", library_version=__version__)

    def once() -> Any:
        try:
            return action(api)
        except errors.OfflineModeIsEnabled:
            raise UserError("HF_HUB_OFFLINE is set", where=where, fix="Unset it, or use --mirror DIR.") from None
        except errors.GatedRepoError:
            raise AccessDenied("access must be requested", where=where) from None
        except errors.RevisionNotFoundError:
            raise UserError(f"{origin.repo} has no revision '{origin.revision}'", where=where) from None
        except errors.RepositoryNotFoundError:
            raise AccessDenied("no such repository, or it is private", where=where) from None
        except errors.EntryNotFoundError:
            return {}
        except errors.HfHubHTTPError as error:
            response = error.response
            if response is None:
                raise Retry("the hub gave no answer") from None
            http.raise_for(response.status_code, response.headers, f"{endpoint()}/datasets/{origin.repo}", where)
            raise UserError("the hub's answer was not understood", where=where) from None
        except Exception as error:
            if isinstance(error, OSError) or any(kind.__name__ == "TransportError" for kind in type(error).__mro__):
                if (final := network.failure(error, endpoint(), where)) is not None:
                    raise final from None
                if isinstance(error, PermissionError) and error.filename:
                    raise UserError(f"cannot be read: {error.strerror}", where=str(error.filename)) from None
                raise Retry(f"connection to the hub failed ({type(error).__name__})") from None
            if isinstance(error, (KeyError, TypeError, ValueError, AttributeError)):
                raise UserError(f"the hub's answer was not understood ({type(error).__name__})", where=where) from None
            raise

    return retrying(once, where)
