"""How the driver joins a cluster, and what it brings along."""

from __future__ import annotations

import json
import os
import re

import pytest

from sweeps.cluster import (
    ENVIRONMENT,
    JOB_CONFIG,
    ROOT,
    joining_options,
    set_environment,
    start_ray,
)
from sweeps.compose import ConfigError
from sweeps.plan import make_plan
from sweeps.schema import ClusterOptions


@pytest.fixture(autouse=True)
def _set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_API_KEY", "a-secret")


def brought(upload_code: bool = True) -> dict[str, object]:
    found: dict[str, object] = joining_options(ClusterOptions("x", "auto", upload_code=upload_code))
    environment = found["runtime_env"]
    assert isinstance(environment, dict)
    return environment


def test_code_and_settings_go_to_a_cluster_and_no_key_does() -> None:
    environment = brought()
    assert environment["working_dir"] == str(ROOT)
    assert environment["env_vars"] == ENVIRONMENT
    assert "a-secret" not in json.dumps(environment)
    assert brought(upload_code=False) == {"env_vars": ENVIRONMENT}


@pytest.mark.parametrize(
    ("address", "variable", "stays"),
    [
        ("local", "10.0.0.1:6379", True),
        ("auto", "127.0.0.1:6379", True),
        ("localhost:6379", "", True),
        ("auto", "10.0.0.1:6379", False),
        ("10.0.0.1:6379", "127.0.0.1:6379", False),
    ],
)
def test_a_ray_on_the_loopback_is_left_and_looked_for_there(
    address: str, variable: str, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "")  # to be restored
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    set_environment(ClusterOptions("x", address))
    assert os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == ("0" if stays else None)
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)


def test_of_the_checkout_only_what_workers_import_is_uploaded() -> None:
    from ray._private.runtime_env.packaging import _get_excludes

    excluded = _get_excludes(ROOT, brought()["excludes"])  # type: ignore[arg-type]
    assert not excluded(ROOT)
    kept = {path.name for path in ROOT.iterdir() if not excluded(path)}
    assert kept == {"kerzoo", "sweeps"}
    assert not excluded(ROOT / "sweeps" / "plan" / "base.py")
    assert excluded(ROOT / "kerzoo" / "__pycache__" / "build.pyc")


def test_a_driver_of_rays_job_server_keeps_the_jobs_own_code_and_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"working_dir": "gcs://x.zip", "env_vars": {"TOKENIZERS_PARALLELISM": "true"}}
    monkeypatch.setenv(JOB_CONFIG, json.dumps({"runtime_env": given}))
    others = {k: v for k, v in ENVIRONMENT.items() if k != "TOKENIZERS_PARALLELISM"}
    assert brought() == {"env_vars": others}
    monkeypatch.setenv(JOB_CONFIG, json.dumps({"runtime_env": None}))
    assert brought()["working_dir"] == str(ROOT)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ray://127.0.0.1:10001", "the driver must run on a node of the cluster"),
        ("auto", "no Ray cluster answers at auto; start one with `ray start --head`"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_a_setting_that_is_wrong(
    address: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def find_none(**_: object) -> None:
        raise ConnectionError("none found")

    monkeypatch.setattr(ray, "init", find_none)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=re.escape(told)):
        start_ray(ClusterOptions("x", address))
    assert os.environ["WANDB_API_KEY"] == "a-secret"


@pytest.mark.parametrize(
    "mirror", ["s3://user:hush@bucket/x", "s3://bucket/x?secret_key=hush", "gs://b/x?Token=hush"]
)
def test_a_mirror_that_holds_a_key_is_refused_without_showing_it(mirror: str) -> None:
    with pytest.raises(ConfigError, match="mirror: must hold no password") as refused:
        make_plan(["+sweep=quickstart", "model=opt-tiny", f"mirror='{mirror}'"], "test")
    assert "hush" not in str(refused.value)
