"""How long a zeroth-order step takes: ours, MeZO as published, and two forward passes.

    make bench
    python tests/bench/step.py --quick
    python tests/bench/step.py --device cuda --models opt-2.7b
    python tests/bench/step.py --tunings lora --threads 1 --rounds 40 --models opt-tiny

All arms of a case take turns in one process, so that a busy machine slows all of them; a ratio is
the median of the rounds' ratios. The models have random weights and published sizes; nothing is
downloaded. Prints tables and writes bench.json.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: the checkout is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import transformers
from arms import (
    CACHE_ARMS,
    CPU_ARMS,
    CUDA_ARMS,
    CUDA_POINT_ARMS,
    POINT_ARMS,
    TIME_PASSES,
    Arm,
    Case,
    Setting,
    Step,
    opened,
    wait,
)

from kerzoo.allocation import keep_freed_memory
from kerzoo.noise import Gaussian, noise_engine

GIB = 1 << 30


LORA_CASES = [
    Case("opt-tiny", "lora", 2, 32),
    Case("opt-tiny", "lora", 16, 64),
    Case("smollm2-135m", "lora", 2, 32),
]
"""Where points share forward passes: a pass is bound by launches, by fewer, by arithmetic."""
CPU_CASES = [
    Case("opt-125m", "full", 16, 64),
    Case("opt-125m", "full", 16, 128),
    Case("opt-125m", "lora", 16, 64),
    Case("smollm2-135m", "full", 16, 64),
    Case("smollm2-135m", "lora_last6", 16, 64),
    Case("minilm-22m", "full", 16, 64),
    Case("minilm-22m", "full", 16, 128),
    Case("opt-tiny", "full", 16, 64),
    *LORA_CASES,
]
FEW_ARMS = ("mezo, published style", "kerzoo", "two forwards, published style", "two forwards")
"""Of the cases after the first, whose steps take seconds."""
CUDA_CASES = [
    Case("opt-2.7b", "full", 16, 64, "cuda", "bfloat16"),
    Case("opt-2.7b", "full", 16, 256, "cuda", "bfloat16"),
    Case("opt-125m", "full", 16, 64, "cuda", "bfloat16"),
    Case("smollm2-135m", "full", 16, 64, "cuda", "bfloat16"),
    Case("smollm2-135m", "lora", 2, 32, "cuda", "bfloat16"),
    Case("smollm2-135m", "lora", 16, 64, "cuda", "bfloat16"),
]
MEMORY_ARMS = (
    "mezo, published style",
    "kerzoo, in place",
    "kerzoo",
    "two forwards",
)


def arms_of(case: Case) -> dict[str, Arm]:
    """The arms that make sense for a case."""
    if case.device == "cuda":
        return CUDA_ARMS | (CUDA_POINT_ARMS if case.tuning == "lora" else {})
    if case in LORA_CASES:
        return POINT_ARMS
    if case.tuning == "lora_last6":
        return CACHE_ARMS
    if case == CPU_CASES[0]:
        return CPU_ARMS
    return {name: CPU_ARMS[name] for name in FEW_ARMS}


def measure(case: Case, rounds: int) -> list[dict[str, Any]]:
    """A row for each arm, from rounds in which each makes one step."""
    arms = arms_of(case)
    durations: dict[str, list[float]] = {name: [] for name in arms}
    memory: dict[str, float] = {}
    gc.collect()
    with contextlib.ExitStack() as stack:
        settings, steps = {}, {}
        for name, arm in arms.items():
            before = torch.cuda.memory_allocated() if case.device == "cuda" else 0
            settings[name] = stack.enter_context(opened(case, arm.cached, arm.graphs, arm.plain))
            steps[name] = arm.make(settings[name])
            for _ in range(3 if arm.graphs else 1):
                steps[name]()
            wait(case.device)
            if case.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                steps[name]()
                memory[name] = (torch.cuda.max_memory_allocated() - before) / GIB
        for _ in range(rounds):
            for name in arms:
                keep_freed_memory(32 if arms[name].plain else 1024)
                wait(case.device)
                start = time.perf_counter()
                steps[name]()
                wait(case.device)
                durations[name].append(time.perf_counter() - start)
        shares = _shares_of_passes(settings, steps)
    return [_row(case, name, arm, durations, shares, memory) for name, arm in arms.items()]


def _shares_of_passes(settings: dict[str, Setting], steps: dict[str, Step]) -> dict[str, float]:
    """Each arm's share of a step that is spent in passes over the weights: the median of two."""
    shares = {}
    TIME_PASSES[0] = True
    for name, setting in settings.items():
        found = []
        for _ in range(2):
            wait(setting.case.device)
            start = time.perf_counter()
            steps[name]()
            wait(setting.case.device)
            found.append(setting.passes_s / (time.perf_counter() - start))
        shares[name] = statistics.median(found)
    TIME_PASSES[0] = False
    return shares


def _row(
    case: Case,
    name: str,
    arm: Arm,
    durations: dict[str, list[float]],
    shares: dict[str, float],
    memory: dict[str, float],
) -> dict[str, Any]:
    own = durations[name]
    published = durations.get("mezo, published style")
    return {
        "model": case.model,
        "tuning": case.tuning,
        "device": case.device,
        "dtype": case.dtype,
        "batch_size": case.batch_size,
        "sequence_length": case.sequence_length,
        "arm": name,
        "noise": arm.noise,
        "step_s": statistics.median(own),
        "step_s_range": [min(own), max(own)],
        "passes_share": shares[name] or None,
        "step_over_two_forwards": _ratio(own, durations[arm.baseline]),
        "speedup_over_mezo": _ratio(published, own) if published else None,
        "peak_memory_gib": memory.get(name),
    }


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def peak_memory(case: Case, arm: str) -> float:
    """Peak resident memory of a fresh process that makes two steps, in GiB."""
    request = json.dumps([dataclasses.asdict(case), arm])
    done = subprocess.run(
        [sys.executable, __file__, "--memory", request],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def print_peak_memory(request: str) -> None:
    """What the process that `peak_memory` starts does."""
    fields, name = json.loads(request)
    case = Case(**fields)
    torch.set_num_threads(case.threads)
    arm = CPU_ARMS[name]
    with opened(case, plain=arm.plain) as setting:
        step = arm.make(setting)
        if not arm.plain:
            keep_freed_memory()
        step()
        step()
    print(_high_water_mark() / GIB)


def _high_water_mark() -> int:
    """Largest resident memory of this program in bytes; getrusage's includes who started it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_passes(device: str, size: int, threads: int, rounds: int) -> dict[str, float]:
    """Elements a second of one perturbation, out ← θ + ε·u, and of `torch.normal` with an axpy."""
    place = torch.device(device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    theta = torch.randn(size, device=place)
    out = torch.empty(size, device=place, dtype=dtype)
    engine = noise_engine(size, Gaussian(), place, threads)

    def ours(key: int) -> None:
        engine.add(key, lambda where: [(where, 1e-3)], theta, out)

    def plain(key: int) -> None:
        torch.manual_seed(key)
        z = torch.normal(0.0, 1.0, (size,), device=place)
        theta.add_(z, alpha=1e-3)

    def copy(key: int) -> None:
        out.copy_(theta)

    found: dict[str, list[float]] = {"fused": [], "torch.normal": [], "copy": []}
    for key in range(rounds + 1):
        for name, function in zip(found, (ours, plain, copy), strict=True):
            wait(device)
            start = time.perf_counter()
            function(key)
            wait(device)
            found[name].append(time.perf_counter() - start)
    return {name: size / statistics.median(times[1:]) for name, times in found.items()}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, IndexError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line for line in lines if line.startswith("model name")).split(": ")[1]
    found: dict[str, Any] = {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def print_case(case: Case, rows: Sequence[dict[str, Any]]) -> None:
    """A table of a case."""
    print(
        f"\n{case.model}, {case.tuning}, {case.dtype}, {case.batch_size} × "
        f"{case.sequence_length} tokens, {case.device}"
    )
    print(f"  {'':31}{'step':>10}{'spread':>17}{'passes':>9}{'÷ 2 fwd':>9}{'MeZO ÷':>8}{'GiB':>7}")
    for row in rows:
        low, high = (1e3 * second for second in row["step_s_range"])
        print(
            f"  {row['arm']:31}{1e3 * row['step_s']:7.1f} ms{low:8.1f} … {high:6.1f}"
            f"{_show(row['passes_share'], '8.0%')} {_show(row['step_over_two_forwards'], '8.2f')}"
            f"{_show(row['speedup_over_mezo'], '8.2f')}{_show(row['peak_memory_gib'], '7.2f')}",
            flush=True,
        )


def _show(value: float | None, form: str) -> str:
    width = int(form.split(".")[0])
    return " " * width if value is None else format(value, form)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python tests/bench/step.py",
        description="Time zeroth-order steps beside MeZO in its published style and beside two "
        "forward passes. “÷ 2 fwd” is a step's duration in units of its two forward passes, "
        "“MeZO ÷” how many times as fast it is as the published style.",
        epilog="The whole takes about a quarter of an hour on two cores.",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="only these")
    parser.add_argument("--tunings", nargs="+", metavar="TUNING", help="only these")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="counted steps an arm")
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    parser.add_argument("--quick", action="store_true", help="the first case, without memory")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = parse(arguments)
    if options.memory:
        print_peak_memory(options.memory)
        return 0
    torch.set_num_threads(options.threads)
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    cases = CUDA_CASES if options.device == "cuda" else CPU_CASES
    cases = [case for case in cases if not options.models or case.model in options.models]
    cases = [case for case in cases if not options.tunings or case.tuning in options.tunings]
    cases = cases[:1] if options.quick else cases
    size = 1 << 31 if options.device == "cuda" else 1 << 27
    passes = measure_passes(options.device, size, options.threads, min(options.rounds, 3))
    print(
        f"\nOne pass over {size:,} weights, in 10⁹ weights a second: "
        + ", ".join(f"{name} {speed / 1e9:.2f}" for name, speed in passes.items())
    )
    rows = []
    for case in cases:
        found = measure(case, options.rounds)
        if case == CPU_CASES[0] and not options.quick:
            for row in found:
                if row["arm"] in MEMORY_ARMS:
                    row["peak_memory_gib"] = peak_memory(case, row["arm"])
        print_case(case, found)
        rows += found
        report = {"machine": about, "passes_per_s": passes, "rows": rows}
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nWritten to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
