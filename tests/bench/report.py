"""`python tests/bench/report.py [FOLDER]`: time, memory and size of the report of a large study.

It fails where one is above its limit: 30 s on two idle cores, 1 GB, 10 MB.

The study is simulated: 2000 trials with 20 rows each, of four arms, ten learning rates, five
values of epsilon and ten seeds; one in a hundred diverges. With FOLDER the records and the report
stay there.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from zlib import crc32

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from records_factory import SimulatedSweep  # noqa: E402

from analysis import build_report  # noqa: E402

MIB = 2**20


def large_sweep() -> SimulatedSweep:
    """2000 trials with 20 rows each, of which one in a hundred diverges."""
    return SimulatedSweep(
        name="large",
        arms=("mezo", "kerzoo_paper", "legendre6", "biweight4"),
        epsilons=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
        learning_rates=tuple(round(1e-3 * 1.6**k, 5) for k in range(10)),
        seeds=tuple(range(10)),
        rungs=tuple(48 * (k + 1) for k in range(19)),
        fate=lambda values: "diverged" if crc32(repr(values).encode()) % 100 == 0 else None,
    )


MAX_SECONDS, MAX_MEMORY_MIB, MAX_WEIGHT_MIB = 30.0, 1e9 / MIB, 1e7 / MIB


def main() -> int:
    """Write the study, build its report, print what that took; 1 where it took too much."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)
        folder = root / "large"
        if not folder.exists():
            large_sweep().write(root)
        began, began_cpu = time.perf_counter(), time.process_time()
        report = build_report([folder])
        took, took_cpu = time.perf_counter() - began, time.process_time() - began_cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"built in {took:.1f} s ({took_cpu:.1f} s of CPU), peak memory {peak:.0f} MiB")
        weight = report.stat().st_size / MIB
        print(f"{report.name} weighs {weight:.2f} MiB")
        files = sum(path.stat().st_size for path in report.parent.rglob("*") if path.is_file())
        print(f"with tables and figures {files / MIB:.2f} MiB")
    return int(took > MAX_SECONDS or peak > MAX_MEMORY_MIB or weight > MAX_WEIGHT_MIB)


if __name__ == "__main__":
    sys.exit(main())
