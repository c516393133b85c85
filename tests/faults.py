"""Faults planted into every process of a sweep, by a `sitecustomize` that comes first."""

from __future__ import annotations

from pathlib import Path

HOOK = '''
import importlib.abc, importlib.machinery, sys

FAULT = {fault!r}


class Finder(importlib.abc.MetaPathFinder):
    """Runs the fault after the module in which it is planted."""

    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            exec(FAULT, vars(module))

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
'''


def plant(folder: Path, module: str, fault: str) -> dict[str, str]:
    """Write the hook.

    Args:
        folder: Where; nothing else lies there.
        module: In which the fault is planted.
        fault: Python code, run in the module's namespace after it.

    Returns:
        The environment of a process that is to have it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(HOOK.format(fault=fault, module=module))
    return {"PYTHONPATH": str(folder)}
