"""The files of docs/clusters, as far as they can be checked without such a cluster."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTERS = Path(__file__).resolve().parents[2] / "docs" / "clusters"


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CLUSTERS / name).read_text())
    return content


def test_the_cluster_of_ray_up_fits_rays_schema() -> None:
    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(read("ray_up.yaml"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**read("ray_up.yaml"), "max_workers": "four"}, schema)


def test_the_script_for_slurm_is_one_that_bash_can_read() -> None:
    subprocess.run(["bash", "-n", str(CLUSTERS / "slurm.sh")], check=True)


def test_every_file_runs_a_sweep_on_the_cluster_at_hand() -> None:
    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert "cluster=auto" in job["spec"]["entrypoint"]
    for name in ("ray_up.yaml", "slurm.sh", "README.md"):
        assert re.search(r"sweep\.py .*cluster=auto", (CLUSTERS / name).read_text()), name
