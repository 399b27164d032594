#!/usr/bin/env python3
"""network.py - a run on two hosts whose cable is bad: cut, cut one way, flapping, lossy, slow, reordering, garbling. As root.

    tests/fault/network.py [--runs 20] [--seed 7] [--out FILE.json]

Each run: two network namespaces and a TAP cable (cable.py), coordinator, learner and actor on one side, an env worker with four slots on the other, keys, TCP;
every Act and Deliver crosses the cable. The worker plays, and four troubles drawn from the seed come one after the other, among all runs
every kind and cuts from 0.1 to 60 s. After each the cable heals, and the time until an episode is journaled that was not before is taken.
Then the run is drained and `gantry history check` looks for what was lost, doubled, or ended twice. The figures go to docs/reliability.md."""
import argparse
import copy
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from cable import Cable  # noqa: E402
from chaos import look, quantiles, wait  # noqa: E402
from conftest import TINY, TOP, Cluster, gantry, merged, scratch  # noqa: E402
from test_netns import A, B, REASON, Inside, ip  # noqa: E402
from test_tcp import Host  # noqa: E402

STAGES = [{"rollouts": {"episodes": 20000}}]
KINDS = ["cut", "cut there", "cut back", "flapping", "2 % loss", "reordering", "bit flips", "10 ms delay"]
TROUBLE = {"2 % loss": {"loss": 0.02}, "reordering": {"reorder": 0.1, "delay_ms": 1}, "bit flips": {"corrupt": 0.02},
           "10 ms delay": {"delay_ms": 10}}


def make_trouble(cable, kind, seconds, draw):
    if kind == "cut":
        cable.set(down=True)
    elif kind.startswith("cut"):
        cable.set(kind == "cut there", down=True)
    elif kind == "flapping":
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            cable.set(down=True)
            time.sleep(draw.uniform(0.05, 0.6))
            cable.set()
            time.sleep(draw.uniform(0.05, 0.6))
    else:
        cable.set(**TROUBLE[kind])
    if kind != "flapping":
        time.sleep(seconds)


class Run:
    def __init__(self, number, args):
        self.draw = random.Random(f"{args.seed} {number}")
        self.root = scratch()
        self.names = [f"gantry-{os.getpid()}-{number}{x}" for x in "ab"]
        config = merged(copy.deepcopy(TINY), {"policy": {"init": str(TOP / "models" / "tiny")}, "run": {"seed": args.seed + number},
                                              "cluster": {"listen": f"tcp://{A}:5555"}})
        config["stages"] = STAGES
        self.cluster = Cluster(self.root, config)
        for name in self.names:
            ip("netns", "add", name)
        self.cable = Cable(self.names, "eth0", f"{args.seed} {number}")
        for name, address in zip(self.names, (A, B)):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def spawn(self, where, role, name, *args):
        self.cluster.processes.append(Inside(self.names[where], self.cluster.run if where else None, self.cluster, role, name, list(args)))

    def start(self):
        cluster, join = self.cluster, f"tcp://{A}:5555"
        cluster.run.mkdir()
        keys = Host(cluster)
        self.spawn(0, "coordinator", "coordinator", "--config", cluster.config, "--run-dir", cluster.run)
        if wait(cluster, lambda s: s) is None:
            sys.exit(f"network: no coordinator\n{cluster.logs()}")
        for role, kind in (("learner", "learner"), ("actor", "actor")):
            self.spawn(0, role, role, "--run-dir", cluster.run, "--join", cluster.coordinator, "--threads", 1, "--key", keys.key(kind), "--listen", f"tcp://{A}:*")
        self.spawn(1, "env-worker", "worker", "--join", join, "--key", keys.key("env_worker"), "--slots", 4)
        if wait(cluster, lambda s: s and s["episodes"]["journaled"] >= 4, 90) is None:
            sys.exit(f"network: nothing is played\n{cluster.logs()}")

    def trouble(self, kind, seconds):
        """Seconds from healing to the next new episode, or None."""
        make_trouble(self.cable, kind, seconds, self.draw)
        self.cable.set()
        at = (look(self.cluster) or {}).get("episodes", {}).get("journaled", 0)
        return wait(self.cluster, lambda s: s and s["episodes"]["journaled"] > at, 60)

    def finish(self):
        gantry("drain", self.cluster.run)
        drained = wait(self.cluster, lambda _: not self.cluster.processes[0].running(), 90) is not None
        check = gantry("history", "check", self.cluster.run)
        return {"drained": drained, "contradictions": check.returncode, "history": (check.stdout + check.stderr).strip().splitlines()[-1][:200],
                "restarts": sum(p.starts - 1 for p in self.cluster.processes), "frames": self.cable.counts}

    def close(self):
        self.cluster.close()
        self.cable.close()
        for name in self.names:
            ip("netns", "del", name, check=False)
        shutil.rmtree(self.root, ignore_errors=True)


def troubles(number, runs, draw):
    """Four: each run begins with the next kind; cuts are of 0.1 to 60 s, evenly in their logarithm over the runs that begin with one."""
    for i in range(4):
        kind = KINDS[number % len(KINDS)] if i == 0 else draw.choice(KINDS)
        if kind.startswith("cut"):
            yield kind, 0.1 * 600 ** (number / max(runs - 1, 1)) if i == 0 else draw.uniform(0.1, 4)
        else:
            yield kind, draw.uniform(2, 5)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out")
    args = parser.parse_args()
    if REASON:
        sys.exit(f"network: {REASON}")
    results, healed = [], {}
    for number in range(args.runs):
        run = Run(number, args)
        try:
            run.start()
            result = {"run": number, "troubles": []}
            for kind, seconds in troubles(number, args.runs, run.draw):
                took = run.trouble(kind, seconds)
                result["troubles"].append([kind, round(seconds, 1), took and round(took, 2)])
                healed.setdefault(kind, []).append(took if took is not None else 60)
            result.update(run.finish())
        finally:
            if sys.exc_info()[0] or not results and not result.get("drained"):
                print(run.cluster.logs(), file=sys.stderr)
            run.close()
        results.append(result)
        print(json.dumps(result), flush=True)
    total = {"seed": args.seed, "runs": len(results), "contradictions": sum(r["contradictions"] for r in results),
             "hangs": sum(t[2] is None for r in results for t in r["troubles"]), "not_drained": sum(not r["drained"] for r in results),
             "restarts": sum(r["restarts"] for r in results), "load": os.getloadavg()[2],
             "progress_after_healing_s": {k: {"troubles": len(v), **quantiles(v)} for k, v in healed.items()}}
    print(json.dumps(total, indent=1))
    if args.out:
        Path(args.out).write_text(json.dumps({**total, "each": results}, indent=1) + "\n")
    sys.exit(bool(total["contradictions"] or total["hangs"] or total["not_drained"]))


if __name__ == "__main__":
    main()
