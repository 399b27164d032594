#!/usr/bin/env python3
"""soak.py - real training for half an hour: does anything grow?

    tests/fault/soak.py [--minutes 30] [--seed 7] [--out FILE.json]

One run under `gantry up`, rl iterations of 8 episodes without end. Every five seconds: resident memory and open descriptors of every daemon.
Printed at the end, for each: memory after a tenth of the time and at the end; slopes of straight lines through the last nine tenths and
through the second half (KB per minute; caches that fill up and memory that is touched for the first time are in the first); descriptors, least
and most, and the most of each third. Then the run is drained and `gantry history check` looks at it. The figures go to docs/reliability.md."""
import argparse
import os
import sys
import time
from pathlib import Path

from long_run import long_run
from chaos import STAGES, look
from conftest import children, command


def looked_at(pid):
    """(resident KB, open descriptors) of a process, or None."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]), len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, IndexError):
        return None


def slope(points):
    """Of a least-squares line through (minutes, KB)."""
    n = len(points)
    if n < 3:
        return None
    mx, my = sum(p[0] for p in points) / n, sum(p[1] for p in points) / n
    return sum((x - mx) * (y - my) for x, y in points) / sum((x - mx) ** 2 for x, _ in points)


def watch(cluster, minutes):
    begun, series = time.monotonic(), {}
    while (now := (time.monotonic() - begun) / 60) < minutes:
        for pid in [cluster.supervisor.pid, *children(cluster.supervisor.pid)]:
            name, values = Path(command(pid).split(" ")[0]).name or "?", looked_at(pid)
            if values:
                series.setdefault(f"{name} {pid}", []).append((now, *values))
        if cluster.supervisor.poll() is not None:
            sys.exit(f"soak: the run has ended\n{cluster.logs()}")
        time.sleep(5)
    return series


def summary(series, minutes):
    rows = {}
    for name, points in series.items():
        steady = [p for p in points if p[0] >= minutes / 10]
        rows[name] = {"kb_after_a_tenth": steady[0][1] if steady else None, "kb_at_the_end": points[-1][1],
                      "kb_per_minute": round(slope([p[:2] for p in steady]) or 0, 1),
                      "kb_per_minute_second_half": round(slope([p[:2] for p in points if p[0] >= minutes / 2]) or 0, 1),
                      "descriptors": [min(p[2] for p in steady or points), max(p[2] for p in steady or points)],
                      "descriptors_in_each_third": [max([p[2] for p in points if k <= 3 * p[0] / minutes < k + 1], default=None) for k in range(3)]}
    return rows


def measure(cluster, minutes):
    first = look(cluster)
    daemons = summary(watch(cluster, minutes), minutes)
    last = look(cluster) or {}
    return {"minutes": minutes, "daemons": daemons, "iterations": last.get("iteration", 0) - first["iteration"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out")
    args = parser.parse_args()
    sys.exit(long_run("soak", args, STAGES, lambda cluster: measure(cluster, args.minutes))[1])


if __name__ == "__main__":
    main()
