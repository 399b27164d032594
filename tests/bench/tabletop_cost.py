#!/usr/bin/env python3
"""What a run of `bench_tabletop.sh` cost, stage by stage: env steps per second, and CPU time per env step of all its processes.

    tabletop_cost.py RUN_DIR OUT.json -- gantry up RUN.yaml

Starts the command and reads /proc of its processes twenty times a second; afterwards steps and times come from the ledger, by kind
of stage (of several the last). Of the rl stage the first iteration is left out (it loads the models), as the first rollout is on
PyTorch's side.
"""
import json
import os
import sqlite3
import subprocess
import sys
import time

TICK = os.sysconf("SC_CLK_TCK")


def children(pid):
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as f:
                name, _, rest = f.read().partition("(")[2].rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        if int(fields[1]) == pid:
            found.append((int(entry), name, (int(fields[11]) + int(fields[12])) / TICK))
    return found


def watch(command):
    """[(wall ms, {pid: CPU seconds})], {pid: name}"""
    samples, names = [], {}
    process = subprocess.Popen(command, stdout=sys.stderr)
    while process.poll() is None:
        now = time.time() * 1e3
        found = children(process.pid)
        names.update((pid, name) for pid, name, _ in found)
        samples.append((now, {pid: cpu for pid, _, cpu in found}))
        time.sleep(.05)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit status {process.returncode}")
    return samples, names


def cpu_at(samples, ms, pid):
    """CPU seconds of a process at a time, on the line between two samples."""
    before = after = None
    for at, cpu in samples:
        if pid not in cpu:
            continue
        if at > ms:
            after = (at, cpu[pid])
            break
        before = (at, cpu[pid])
    if not before or not after:
        return (before or after or (0, 0))[1]
    return before[1] + (after[1] - before[1]) * (ms - before[0]) / (after[0] - before[0])


def cost(samples, names, begin, end, steps):
    by_role = {}
    for pid, name in names.items():
        role = name.replace("gantry-", "")
        by_role[role] = by_role.get(role, 0) + cpu_at(samples, end, pid) - cpu_at(samples, begin, pid)
    return {"steps": steps, "seconds": (end - begin) / 1e3, "steps_per_s": steps * 1e3 / (end - begin),
            "cpu_ms_per_step": sum(by_role.values()) * 1e3 / steps,
            "by_role": {role: s * 1e3 / steps for role, s in sorted(by_role.items()) if s > .01}}


def main():
    split = sys.argv.index("--")
    run, out = sys.argv[1:split]
    samples, names = watch(sys.argv[split + 1:])
    ledger = sqlite3.connect(f"file:{run}/ledger.sqlite?mode=ro", uri=True)
    result = {}
    for stage, kind in ledger.execute("SELECT stage, kind FROM stages ORDER BY stage").fetchall():
        rows = ledger.execute("SELECT iteration, start_ms, end_ms, (SELECT SUM(steps) FROM episodes e WHERE e.stage = i.stage AND "
                              "e.iteration = i.iteration) FROM iterations i WHERE stage = ? ORDER BY iteration", (stage,)).fetchall()
        rows = [r for r in rows if r[3]][1 if kind == "rl" else 0:]
        if rows:
            result[kind] = cost(samples, names, rows[0][1], rows[-1][2], sum(r[3] for r in rows))
    with open(out, "w") as f:
        json.dump(result, f, indent=1)


if __name__ == "__main__":
    main()
