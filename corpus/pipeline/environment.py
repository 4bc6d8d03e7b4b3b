"""What the build's shell says of servers and logins, for workers that another program starts.

It goes through a file on the shared folder that only its owner can read: Ray would show it in its dashboard.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from corpus.base.errors import UserError
from corpus.pipeline.marks import OWNER

FILE = "environment.json"
PASSED_ON = re.compile(
    r"HF_TOKEN|HF_ENDPOINT|HF_HOME|HF_HUB_\w+|HUGGING_FACE_HUB_TOKEN|AWS_\w+|CORPUS_\w+"
    r"|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|SSL_CERT_FILE|SSL_CERT_DIR"
    r"|(?i:https?_proxy|all_proxy|no_proxy)"
)


def leave_environment(attempt: Path) -> Path:
    """Write what workers need to read sources as this process would; returns the file, to be removed afterwards."""
    passed = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name) and name != OWNER}
    if "HF_TOKEN" not in passed:
        from huggingface_hub import get_token

        # The login may lie in a home folder that the nodes have not.
        passed |= {"HF_TOKEN": token} if (token := get_token()) else {}
    path = attempt / FILE
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as out:
        json.dump(passed, out)
    return path


def take_environment(attempt: Path) -> None:
    """Take over what `leave_environment` left for this worker, if it did."""
    try:
        passed = json.loads((attempt / FILE).read_text())
    except FileNotFoundError:
        return
    except PermissionError:
        raise UserError(
            "the workers may not read what the build leaves for them",
            where=str(attempt / FILE),
            fix="Run the build as the user that the cluster's workers run as.",
        ) from None
    os.environ.update(passed)
