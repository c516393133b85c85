"""What the Hugging Face hub, or its cache on this machine, can serve."""

from __future__ import annotations

import os
import re
from pathlib import Path

_TIMEOUT_S = 5.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


def check_commit(revision: str) -> None:
    """Refuse a revision that can move: it is part of every trial's identity.

    Raises:
        ValueError: If it is not a full commit.
    """
    if not _COMMIT.fullmatch(str(revision)):
        raise ValueError(
            "revision must be a full commit (40 hexadecimal digits, under Files and versions on "
            f"the hub's page), got {revision!r}"
        )


def check_repository(hub_id: str, revision: str, kind: str, instead: str) -> None:
    """See whether a repository is in the cache or can be reached; downloads nothing.

    Args:
        hub_id: `owner/name`.
        revision: A commit.
        kind: "model" or "dataset".
        instead: The settings that help where neither is so, for the error message.

    Raises:
        ValueError: If neither can serve it.
    """
    import httpx
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if _is_cached(hub_id, revision, kind):
        return
    looked = f"{kind} {hub_id} at {revision[:8]} is not in the cache {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        raise ValueError(f"{looked} and HF_HUB_OFFLINE is set; {instead}")
    try:
        HfApi().repo_info(hub_id, revision=revision, repo_type=kind, timeout=_TIMEOUT_S)
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{looked} and {constants.ENDPOINT} does not serve it ({reason}); {instead}"
        ) from error


def _is_cached(hub_id: str, revision: str, kind: str) -> bool:
    from huggingface_hub import constants

    name = f"{kind}s--{hub_id.replace('/', '--')}"
    snapshot = Path(constants.HF_HUB_CACHE) / name / "snapshots" / revision
    return snapshot.is_dir() and any(os.scandir(snapshot))
