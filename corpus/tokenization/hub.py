"""The tokenizer.json of a Hugging Face repository, and the commit it is from.

A branch is looked up once per data folder, and again with --refresh: what was downloaded for it stays the recipe's
tokenizer, so that a build goes on with the same ids.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from corpus.acquire import AcquireConfig, http, hub, network
from corpus.acquire.transfer import Retry, retrying
from corpus.base.errors import UserError
from corpus.base.files import disk_errors
from corpus.tokenization.specs import HubTokenizer

FILE = "tokenizer.json"
CONNECTION_ATTEMPTS = 2
"""Rounds of the library's own half a minute of retries."""


def hub_tokenizer(spec: HubTokenizer, config: AcquireConfig, say: Callable[[str], None]) -> tuple[Path, str | None]:
    """A local copy of the file, and the commit it is from; None for a mirror, which does not say.

    Says every further try in one line. Raises UserError when it cannot be had; without a network within seconds.
    """
    if config.mirror is not None:
        path = config.mirror / "models" / spec.repo / FILE
        if not path.is_file():
            raise UserError("the mirror does not hold this tokenizer", where=str(path), fix="Copy it there.")
        return path, None
    from huggingface_hub import try_to_load_from_cache

    folder, where = config.cache / "models", f"tokenizer of {spec.repo}"
    known = try_to_load_from_cache(spec.repo, FILE, cache_dir=folder, revision=spec.revision)
    if isinstance(known, str) and (config.offline or not config.refresh):
        return _with_commit(Path(known))
    if config.offline:
        raise UserError("was not downloaded yet", where=where, fix="Run it once without --offline.")
    hub.require()
    download = _Download(spec, folder, where)

    def told() -> Path:
        try:
            return download()
        except Retry as error:
            say(f"{where}: {error}; trying again")
            raise

    return _with_commit(retrying(told, where))


def _with_commit(path: Path) -> tuple[Path, str | None]:
    """The library keeps a file in a folder that is called by its commit."""
    commit = path.parent.name
    return path, commit if hub.is_commit(commit) else None


class _Download:
    """One try at the file; raises Retry for what may pass."""

    def __init__(self, spec: HubTokenizer, folder: Path, where: str) -> None:
        self.spec, self.folder, self.where = spec, folder, where
        self.unanswered = 0

    def __call__(self) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

        spec, where = self.spec, self.where
        try:
            with disk_errors(self.folder), _quiet_library():
                return Path(
                    hf_hub_download(
                        spec.repo, FILE, revision=spec.revision, cache_dir=self.folder, endpoint=hub.endpoint()
                    )
                )
        except UserError:
            raise
        except GatedRepoError:
            raise UserError(
                f"the tokenizer of {spec.repo} is gated",
                where=f"https://huggingface.co/{spec.repo}",
                fix="Accept its terms there and log in with `hf auth login`, or name a local file as tokenizer.",
            ) from None
        except LocalEntryNotFoundError as error:
            if (final := network.failure(error, hub.endpoint(), where)) is not None:
                raise final from None
            raise self._no_answer(type(error.__cause__).__name__) from None
        except HfHubHTTPError as error:
            if error.response is None:
                raise self._no_answer(type(error).__name__) from None
            url = f"{hub.endpoint()}/{spec.repo}"
            http.raise_for(error.response.status_code, error.response.headers, url, where)
            raise UserError("the hub's answer was not understood", where=where) from None
        except OSError as error:
            raise Retry(f"the download failed ({type(error).__name__})") from None

    def _no_answer(self, why: str) -> Exception:
        self.unanswered += 1
        if self.unanswered < CONNECTION_ATTEMPTS:
            return Retry(f"the hub gave no answer ({why})")
        return UserError(
            f"the hub gave no answer ({why})",
            where=self.where, fix=hub.WITHOUT_NETWORK,
        )  # fmt: skip


@contextlib.contextmanager
def _quiet_library() -> Iterator[None]:
    """Without the library's lines on each of its own retries."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
