#!/usr/bin/env python3
"""churn.py - env workers come and go while a run trains: half of them are replaced each minute.

    tests/fault/churn.py [--minutes 10] [--calm 3] [--workers 4] [--share 0.5] [--seed 7] [--out FILE.json]

One run under `gantry up`. First `--calm` minutes as it is, then churn: kill -9 of one (the supervisor starts another), or one drained and another
added, in turn, so many a minute that --share of the workers are other ones after it. The learner must be the same process from beginning to end,
no episode may fail, and `gantry history check` must find nothing. Printed: journaled episodes and environment steps a minute, calm and under churn. Half of
the calm minutes come after the churn, so that a machine that gets slower is not taken for a loss. The figures go to docs/reliability.md."""
import argparse
import os
import random
import signal
import sqlite3
import sys
import time

from long_run import long_run
from chaos import STAGES, look, wait
from conftest import gantry


def totals(cluster):
    status = None
    while status is None:
        status = look(cluster)
    return time.monotonic(), status["episodes_since_start"], status["env_steps_since_start"]


def workers(cluster):
    return [m for m in (look(cluster) or {}).get("members", []) if m["role"] == "env_worker" and m["state"] == "alive"]


def replace_one(cluster, draw, number, wanted):
    """One of them leaves, by force or in order; -> how."""
    there = workers(cluster)
    if not there:
        return "none there"
    one = draw.choice(there)
    if number % 2 == 0:
        os.kill(one["pid"], signal.SIGKILL)
        return "killed"
    gantry("drain", cluster.run, one["member"])
    wait(cluster, lambda s: s and all(m["member"] != one["member"] for m in s["members"]), 60)
    gantry("scale", cluster.run, "env_worker", wanted - 1)
    gantry("scale", cluster.run, "env_worker", wanted)
    return "drained"


def churn(cluster, args, draw):
    done, begun = {}, time.monotonic()
    pause = 60 / (args.share * args.workers)
    while (now := time.monotonic() - begun) < args.minutes * 60:
        if now >= sum(done.values()) * pause:
            how = replace_one(cluster, draw, sum(done.values()), args.workers)
            done[how] = done.get(how, 0) + 1
        time.sleep(0.2)         # between two looks at the clock
    return done


def per_minute(spans):
    seconds = sum(b[0] - a[0] for a, b in spans)
    return {"minutes": round(seconds / 60, 1), "episodes": round(60 * sum(b[1] - a[1] for a, b in spans) / seconds, 1),
            "env_steps": round(60 * sum(b[2] - a[2] for a, b in spans) / seconds)}


def measure(cluster, args):
    learner, draw = cluster.pids("learner"), random.Random(args.seed)
    marks = [totals(cluster)]
    time.sleep(args.calm * 30)
    marks.append(totals(cluster))
    replaced = churn(cluster, args, draw)
    marks.append(totals(cluster))
    time.sleep(args.calm * 30)
    marks.append(totals(cluster))
    return {"workers": args.workers, "a_minute": args.share, "replaced": replaced, "the_learner_restarted": cluster.pids("learner") != learner, "load": os.getloadavg()[1],
            "calm": per_minute([marks[0:2], marks[2:4]]), "churn": per_minute([marks[1:3]])}


def failed_episodes(run):
    with sqlite3.connect(run / "ledger.sqlite") as db:
        return {"failed_episodes": db.execute("select count(*) from episodes where state = 'failed'").fetchone()[0]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--calm", type=float, default=3)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out")
    args = parser.parse_args()
    result, contradicted = long_run("churn", args, STAGES, lambda cluster: measure(cluster, args), failed_episodes,
                                    cluster={"env_workers": args.workers, "slots": 2})
    sys.exit(bool(contradicted or result["failed_episodes"] or result["the_learner_restarted"] or not result["drained"]))


if __name__ == "__main__":
    main()
