"""Nothing that comes from elsewhere is run: no pickles, no code of models, no foreign targets."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.compose import ConfigError
from sweeps.plan import make_plan

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    [
        ROOT / "sweep.py",
        *(p for r in ("kerzoo", "sweeps", "analysis") for p in (ROOT / r).rglob("*.py")),
    ]
)
UNPICKLING = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
NEEDED = {"torch.load": ("weights_only", True), "from_pretrained": ("trust_remote_code", False)}
"""Calls that are safe with a keyword; `gguf_file` holds tensors alone."""
OWN_FILES = {"sweeps/recovery.py": "cloudpickle.loads"}
"""Of the driver's own worker's error, which the driver's own process wrote down just before."""
OWN_COMMANDS = {"sweeps/notify.py"}
"""The shell command that the user's environment names."""


def unsafe_calls(source: str) -> Iterator[str]:
    """Calls that can run what a file or a setting says."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        module, _, last = name.rpartition(".")
        if name in ("eval", "exec", "os.system", "hydra.utils.instantiate", "instantiate"):
            yield name
        if module.rpartition(".")[2] in UNPICKLING and last in ("load", "loads", "open"):
            yield name
        if name == "yaml.load" or given.get("allow_pickle") or given.get("shell"):
            yield name
        for ending, (keyword, value) in NEEDED.items():
            if (
                name.endswith(ending)
                and given.get(keyword) is not value
                and "gguf_file" not in given
            ):
                yield name


@pytest.mark.parametrize(
    "source", SOURCES, ids=[path.relative_to(ROOT).as_posix() for path in SOURCES]
)
def test_nothing_is_unpickled_and_nothing_that_a_file_says_is_run(source: Path) -> None:
    path = source.relative_to(ROOT).as_posix()
    found = list(unsafe_calls(source.read_text(encoding="utf-8")))
    if path in OWN_COMMANDS:
        assert found == ["subprocess.run"]
        return
    assert found == ([OWN_FILES[path]] if path in OWN_FILES else [])


@pytest.mark.parametrize(
    "call",
    [
        "eval(text)",
        "pickle.load(file)",
        "ray.cloudpickle.loads(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(path)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_an_unsafe_call_is_found(call: str) -> None:
    assert list(unsafe_calls(call)) == [call.partition("(")[0]]


@pytest.mark.parametrize(
    ("override", "package"),
    [
        ("kernel._target_=os.system", "kerzoo"),
        ("task.source._target_=subprocess.Popen", "kerzoo"),
        ("model._target_=sweeps.notify.Notifier", "kerzoo"),
        ("scheduler._target_=subprocess.Popen", "sweeps.schedulers"),
        ("scheduler._target_=sweeps.schema.SweepConfig", "sweeps.schedulers"),
    ],
)
def test_a_target_outside_its_package_is_refused_before_anything_is_made(
    override: str, package: str
) -> None:
    with pytest.raises(ConfigError, match=rf"_target_: must name a class inside {package}, got"):
        make_plan(["+sweep=quickstart", "model=opt-tiny", override], "test")
