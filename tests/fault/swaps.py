#!/usr/bin/env python3
"""swaps.py - the reward model is swapped again and again while episodes are played and scored.

    tests/fault/swaps.py [--swaps 50] [--seed 7] [--slots 8] [--out FILE.json]

One run under `gantry up` with two reward models; as soon as an iteration has been opened with the one, the run is told to use the other. From the
journal: how long each episode's scores took, for iterations played before a swap (the last under a version), right after it (the first under the
other) and between. Nothing may have failed, and every episode was scored by one version. The figures go to docs/reliability.md."""
import argparse
import sqlite3
import struct
import sys

from long_run import long_run
from chaos import look, wait
from conftest import admin

PRM = {"steps": 3, "batch": 8, "holdout": 0.3, "force": True}
STAGES = [{"demos": {"episodes": 6, "style": "clean"}}, {"sft": {"steps": 3, "batch": 8, "warmup": 1}}, {"rollouts": {"episodes": 20}},
          {"prm": PRM}, {"prm": {**PRM, "name": "prm2"}},
          {"rl": {"iterations": 100000, "episodes": 16, "preset": "tabletop", "eval_every": 0, "critic_warmup": 0}}]
HEADER = struct.Struct("<IIIIQQQII32s8sII")         # lib/run/journal_segment.h
SCORE_US = 34                                       # proto/trajectory.proto


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def field(data, wanted):
    """The last value of a varint field of a message; 0 if it has none."""
    at = found = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
            found = value if key >> 3 == wanted else found
        elif key & 7 == 2:
            n, at = varint(data, at)
            at += n
        else:
            at += 8 if key & 7 == 1 else 4
    return found


def score_ms(run, stage):
    """Episode -> milliseconds, of every trajectory of a stage that the journal still has."""
    out = {}
    for path in (run / "journal").glob(f"{stage:04d}-*"):
        data, at = path.read_bytes(), 0
        while at + HEADER.size <= len(data):
            _, kind, n_meta, n_packed, _, key, *_ = HEADER.unpack_from(data, at)
            at += HEADER.size
            if kind == 2:
                out[key] = field(data[at:at + n_meta], SCORE_US) / 1000
            if kind == 3:
                break
            at += n_meta + n_packed
    return out


def quantiles(values):
    values = sorted(values)
    return {"episodes": len(values), "median_ms": round(values[len(values) // 2], 1), "p99_ms": round(values[len(values) * 99 // 100], 1)} \
        if values else {}


def figures(run, stage):
    took = score_ms(run, stage)
    with sqlite3.connect(run / "ledger.sqlite") as db:
        rows = db.execute("select iteration, episode, prm_version from episodes where stage = ? and purpose = 3 order by episode", (stage,)).fetchall()
        failed = db.execute("select count(*) from episodes where state = 'failed'").fetchone()[0]
        returned = db.execute("select count(*) from events where kind like '%fail%' or kind like '%return%'").fetchone()[0]
    version = {iteration: prm for iteration, _, prm in rows}
    order = sorted(version)
    groups = {"before": [], "first after": [], "between": []}
    for iteration, episode, _ in rows:
        i = order.index(iteration)
        if episode not in took:
            continue
        if i and version[order[i - 1]] != version[iteration]:
            groups["first after"].append(took[episode])
        elif i + 1 < len(order) and version[order[i + 1]] != version[iteration]:
            groups["before"].append(took[episode])
        else:
            groups["between"].append(took[episode])
    mixed = sum(len({prm for it, _, prm in rows if it == iteration}) > 1 for iteration in order)
    swaps = sum(version[a] != version[b] for a, b in zip(order, order[1:]))
    return {"swaps_seen": swaps, "failed_episodes": failed, "returned_leases": returned, "iterations_with_two_versions": mixed,
            **{name: quantiles(values) for name, values in groups.items()}}


def swap(cluster, swaps):
    for n in range(swaps):
        at = look(cluster)["iteration"]
        admin(cluster.run / "sock" / "status.sock", f"prm swap {1 + n % 2}")
        if wait(cluster, lambda s: s and s["iteration"] >= at + 3, 120) is None:
            sys.exit(f"swaps: nothing goes on after swap {n}\n{cluster.logs()}")
    return {"swaps": swaps}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--out")
    args = parser.parse_args()
    result, contradicted = long_run("swaps", args, STAGES, lambda cluster: swap(cluster, args.swaps), lambda run: figures(run, 5),
                                    cluster={"slots": args.slots}, journal={"keep": 500})
    sys.exit(bool(contradicted or result["failed_episodes"] or result["iterations_with_two_versions"]))


if __name__ == "__main__":
    main()
