"""Which software a plan was made with."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import kerzoo

PACKAGES = ("torch", "transformers", "peft", "ray", "hydra-core", "wandb", "numpy", "optuna")
ROOT = Path(__file__).resolve().parent.parent.parent


def find_versions() -> dict[str, str]:
    """Package → its version, as far as it is installed."""
    versions = {"python": platform.python_version(), "kerzoo": kerzoo.__version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def find_commit() -> str | None:
    """The project's commit, with "+" when files differ from it; None outside a checkout."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
