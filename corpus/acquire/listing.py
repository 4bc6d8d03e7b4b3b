"""The files of a source, whatever its origin."""

from __future__ import annotations

from corpus.acquire.generated import list_embedded
from corpus.acquire.hub import list_hub
from corpus.acquire.local import list_local, list_mirror
from corpus.acquire.models import AcquireConfig, Listing
from corpus.acquire.objects import list_objects
from corpus.acquire.origins import EmbeddedOrigin, FilesOrigin, HubOrigin, Upstream, UrlsOrigin
from corpus.acquire.urls import list_urls


def list_files(source: Upstream, config: AcquireConfig) -> Listing:
    """The files of a source at its pinned revision; nothing is downloaded but listings, which are cached.

    Raises UserError when a pattern matches nothing, a name is unsafe, or the source cannot be reached.
    """
    origin, where = source.origin, source.title
    if isinstance(origin, FilesOrigin):
        return list_local(origin, config, where)
    if isinstance(origin, EmbeddedOrigin):
        return list_embedded(origin, config)
    if isinstance(origin, UrlsOrigin):
        return list_urls(origin, config, where)
    if config.mirror is not None:
        return list_mirror(origin, config, where)
    return list_hub(origin, config, where) if isinstance(origin, HubOrigin) else list_objects(origin, config, where)
