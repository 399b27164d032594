#!/usr/bin/env python3
"""Who has the cores while an rl iteration plays, trains, and hands over: from the scheduler's own record.

    core_use.py RUN_DIR [--timeline ITERATION] -- gantry up RUN.yaml

Runs the command under `perf record -e sched:sched_switch` (Debian: linux-perf; root, or kernel.perf_event_paranoid -1), takes the
times of an iteration from the run's logs, and prints core-milliseconds per iteration by daemon; `other` is whoever else uses the
machine. The first and the last iteration are left out. --timeline: one iteration in slots of 20 ms.
"""
import collections
import datetime
import glob
import re
import subprocess
import sys
import time

SWITCH = re.compile(r"\s*.+?\s+(\d+)/(\d+)\s+\[(\d+)\]\s+(\d+\.\d+):.*==> next_comm=.+? next_pid=(\d+)")
PHASES = (("play", "opened", "plan"), ("train", "plan", "trained"), ("handover", "trained", "next"))
WHO = ("env_worker", "actor", "prm_server", "learner", "coordinator", "other", "idle")
SLOT = .02


def read_logs(run):
    """{iteration: {opened, plan, trained, next}} in seconds, {pid: role}"""
    iterations, roles = collections.defaultdict(dict), {}
    for path in glob.glob(f"{run}/log/*"):
        for line in open(path, errors="replace"):
            up = re.search(r"role=(\w+) .*\bpid=(\d+)", line)
            if up:
                roles[int(up[2])] = up[1]
            at = re.match(r"ts=(\S+)Z ", line)
            said = re.search(r'msg="(iteration opened|plan sent)".* name="rl/(\d+)"', line) or \
                re.search(r'msg="(trained)" objective=ppo .*iteration=(\d+)', line)
            if at and said:
                what = {"iteration opened": "opened", "plan sent": "plan", "trained": "trained"}[said[1]]
                iterations[int(said[2])][what] = datetime.datetime.fromisoformat(at[1] + "+00:00").timestamp()
    for i in iterations:
        if i + 1 in iterations:
            iterations[i]["next"] = iterations[i + 1]["opened"]
    return iterations, roles


def read_spans(data, shift):
    """[(begin, end, thread)] of every core, {thread: process}"""
    text = subprocess.run(["perf", "script", "-i", data, "-F", "comm,pid,tid,cpu,time,event,trace"], capture_output=True, text=True,
                          check=True).stdout
    spans, process, running = [], {}, {}
    for line in text.splitlines():
        m = SWITCH.match(line)
        if not m:
            continue
        pid, tid, core, at, after = int(m[1]), int(m[2]), int(m[3]), float(m[4]) + shift, int(m[5])
        process[tid] = pid
        if core in running:
            spans.append((running[core][0], at, running[core][1]))
        running[core] = (at, after)
    return spans, process


def main():
    split = sys.argv.index("--")
    run, shown = sys.argv[1], int(sys.argv[3]) if split > 2 else None
    data = f"{run.rstrip('/')}.perf"
    shift = time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    subprocess.run(["perf", "record", "-k", "CLOCK_MONOTONIC", "-e", "sched:sched_switch", "-a", "-o", data, "--", *sys.argv[split + 1:]],
                   stdout=subprocess.DEVNULL, check=True)
    iterations, roles = read_logs(run)
    spans, process = read_spans(data, shift)

    def use(begin, end):
        total = collections.Counter()
        for a, b, thread in spans:
            if b > begin and a < end:
                who = "idle" if thread == 0 else roles.get(process.get(thread), "other")
                total[who] += (min(b, end) - max(a, begin)) * 1e3
        return total

    whole = [i for i in sorted(iterations)[1:-1] if len(iterations[i]) == 4]
    sums, walls = collections.defaultdict(collections.Counter), collections.Counter()
    for i in whole:
        for name, begin, end in PHASES:
            for phase in (name, "all"):
                sums[phase] += use(iterations[i][begin], iterations[i][end])
                walls[phase] += (iterations[i][end] - iterations[i][begin]) * 1e3
    print(f"{len(whole)} iterations, core-ms each\n{'':9}{'wall ms':>9}" + "".join(f"{w:>12}" for w in WHO) + "     ours")
    for phase in sums:
        ours = sum(sums[phase][w] for w in WHO[:5])
        print(f"{phase:9}{walls[phase] / len(whole):9.0f}" + "".join(f"{sums[phase][w] / len(whole):12.0f}" for w in WHO) +
              f"{100 * ours / sum(sums[phase].values()):8.1f} %")
    if shown in whole:
        begin, end = iterations[shown]["opened"], iterations[shown]["next"]
        print(f"iteration {shown}: plan after {(iterations[shown]['plan'] - begin) * 1e3:.0f} ms, trained after "
              f"{(iterations[shown]['trained'] - begin) * 1e3:.0f}")
        for k in range(int((end - begin) / SLOT) + 1):
            part = use(begin + k * SLOT, begin + (k + 1) * SLOT)
            print(f"{k * SLOT * 1e3:6.0f} " + "  ".join(f"{w} {part[w] / (2 * SLOT * 10):.0f} %" for w in WHO if part[w] >= .2))


if __name__ == "__main__":
    main()
