"""What the Hugging Face hub can serve."""

from __future__ import annotations

import re

_TIMEOUT_S = 5.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


def check_commit(revision: str) -> None:
    """Refuse a revision that can move: it is part of every trial's identity.

    Raises:
        ValueError: If it is not a full commit.
    """
    if not _COMMIT.fullmatch(str(revision)):
        raise ValueError(
            "revision must be a full commit (40 hexadecimal digits, as under Files and versions "
            f"on the hub's page), got {revision!r}"
        )


def check_served(hub_id: str, revision: str, kind: str, filename: str, instead: str) -> None:
    """Ask the hub for one file's header: whether it is reachable, and open to this user.

    Args:
        hub_id: `owner/name`.
        revision: A commit.
        kind: "model" or "dataset".
        filename: A small file that the repository has.
        instead: The settings that help where the hub cannot serve it, for the error message.

    Raises:
        ValueError: If the hub does not answer, or refuses.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(hub_id, filename, repo_type=kind, revision=revision)
    try:
        get_hf_file_metadata(url, timeout=_TIMEOUT_S)
    except Exception as error:  # what the transport raises depends on the hub client's version
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise ValueError(
            f"{kind} {hub_id} at {revision[:8]} is not in the cache {constants.HF_HOME} and "
            f"{constants.ENDPOINT} does not serve it ({reason}); {instead}"
        ) from error
