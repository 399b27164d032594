#!/usr/bin/env python3
"""chaos.py - kill -9 of each kind of daemon, again and again, while a run really trains; then the history checker.

    make chaos [CHAOS="--kills 100 --kinds learner,actor --seed 7 --out FILE.json"]

One run for each kind, under `gantry up`, long enough not to end. A kill comes 0 to --pause seconds after things have gone back to normal
(drawn from --seed). Measured from the kill: until the kind's daemon is a member again, and until episodes are journaled (or a version
committed) again. A run that does not go back to normal within 60 s counts as a hang. At the end the run is drained and `gantry history check`
joins ledger, journal and manifests: lost, trained twice, ended twice. The figures go to docs/reliability.md."""
import argparse
import copy
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from conftest import ROLES, TINY, TOP, Cluster, gantry, merged, scratch  # noqa: E402

STAGES = [{"demos": {"episodes": 6, "style": "clean"}}, {"sft": {"steps": 3, "batch": 8, "warmup": 1}}, {"rollouts": {"episodes": 20}},
          {"prm": {"steps": 3, "batch": 8, "holdout": 0.3, "force": True}},
          {"rl": {"iterations": 100000, "episodes": 8, "preset": "tabletop", "eval_every": 0, "critic_warmup": 0}}]


def look(cluster):
    try:
        return cluster.status()
    except (OSError, RuntimeError, ValueError):
        return None


def wait(cluster, condition, patience=60):
    """Seconds until it holds, or None."""
    begun = time.monotonic()
    while time.monotonic() - begun < patience:
        if condition(look(cluster)):
            return time.monotonic() - begun
        time.sleep(0.02)        # between two questions
    return None


def progress(status):
    return status and (status["iteration"], status["episodes"]["journaled"])


def kill_one(cluster, kind):
    """Kill the daemon of that kind; -> (seconds until it is back, seconds until progress) or None."""
    before = cluster.pids(kind)
    if not before:
        return None
    os.kill(before[0], signal.SIGKILL)
    begun = time.monotonic()

    def back(status):
        now = cluster.pids(kind) if status else []
        return now and before[0] not in now
    if wait(cluster, back) is None:
        return None
    returned = time.monotonic() - begun
    at = progress(look(cluster))
    if wait(cluster, lambda s: s and progress(s) != at) is None:
        return None
    return returned, time.monotonic() - begun


def quantiles(values):
    values = sorted(values)
    return {"median": round(values[len(values) // 2], 2), "p90": round(values[len(values) * 9 // 10], 2), "worst": round(values[-1], 2)} if values else {}


def loop(kind, args):
    root = scratch()
    config = merged(copy.deepcopy(TINY), {"policy": {"init": str(TOP / "models" / "tiny")}, "run": {"seed": args.seed}})
    config["stages"] = STAGES
    cluster, draw = Cluster(root, config), random.Random(f"{args.seed} {kind}")
    result = {"kind": kind, "seed": args.seed, "kills": 0, "hangs": 0}
    times = []
    try:
        cluster.up()
        if wait(cluster, lambda s: s and s["stage_number"] == 4 and s["iteration"] >= 1, 180) is None:
            sys.exit(f"chaos: the run did not reach rl\n{cluster.logs()}")
        for _ in range(args.kills):
            time.sleep(draw.uniform(0, args.pause))
            took = kill_one(cluster, kind)
            result["kills"] += 1
            if took is None:
                result["hangs"] += 1
                break
            times.append(took)
        status = look(cluster) or {}
        result["iterations"] = status.get("iteration")
        gantry("drain", cluster.run)
        result["drained"] = cluster.supervisor.wait(120) == 0
        check = gantry("history", "check", cluster.run)
        result["history"] = (check.stdout + check.stderr).strip().splitlines()[-1][:200]
        result["contradictions"] = check.returncode
        result["back_s"] = quantiles([t[0] for t in times])
        result["normal_s"] = quantiles([t[1] for t in times])
    finally:
        if result["hangs"]:
            print(cluster.logs(), file=sys.stderr)
        cluster.close()
        shutil.rmtree(root, ignore_errors=True)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kinds", default=",".join(ROLES))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--pause", type=float, default=1.0)
    parser.add_argument("--out")
    args = parser.parse_args()
    results = []
    for kind in args.kinds.split(","):
        results.append(loop(kind, args))
        print(json.dumps(results[-1]), flush=True)
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(any(r["hangs"] or r["contradictions"] or not r["drained"] for r in results))


if __name__ == "__main__":
    main()
