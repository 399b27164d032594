#!/usr/bin/env python3
"""drawn_runs.py - runs whose settings are drawn, each once undisturbed and once under kill -9; then they are held against each other.

    tests/fault/drawn_runs.py [--runs 50 --seed 7 --only N --kills 6 --keep DIR]

Features are tested one by one elsewhere; here it is seen whether they go together. A drawn configuration is either refused, in lines that
name a key, before anything is played; or it runs to its end, also when daemons and `gantry up` itself are killed at drawn moments, its
history has no contradiction, and, in strict numerics, its weights are the same bits both times. What does not hold is printed with the
number that draws it again (--only). The figures go to docs/reliability.md."""
import argparse
import copy
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from conftest import TINY, TOP, Cluster, children, gantry, merged, scratch  # noqa: E402

PATIENCE = 240
TASKS = ["pick_up_object", "open_drawer", "push_to_target"]


# ---- what is drawn ----

def maybe(draw, settings, share=.3):
    """Some of these keys: {key: [values to choose from]}."""
    return {key: draw.choice(values) for key, values in settings.items() if draw.random() < share}


def draw_policy(draw, models):
    kind = draw.choices(["plain", "l1", "tokens", "laplace"], [6, 1, 1, 2])[0]
    policy = {"init": str(models[kind])}
    if draw.random() < .3:
        policy.update(train="lora", **maybe(draw, {"lora_r": [1, 4], "lora_alpha": [8], "lora_targets": ["q_proj,v_proj", "all-linear"]}, .5))
    policy.update(maybe(draw, {"support": ["full", "action"], "center_crop": [.9, 1]}, .2))
    if policy.get("support") == "full":
        policy.update(maybe(draw, {"eos_in_logp": [True]}, .5))
    if draw.random() < .15:
        policy.update(init=str(models[kind + "-bf16"]), weights="bf16")
    return policy


def draw_rl(draw):
    rl = {"iterations": draw.randint(1, 4), "episodes": draw.choice([4, 8]), "preset": draw.choice(["gantry", "tabletop", "grpo", "paper", "writeup"]),
          "eval_every": draw.choice([0, 1, 2]), "eval_episodes": draw.choice([2, 3]), "minibatch": 16, "group": draw.choice([2, 4])}
    rl["critic_warmup"] = draw.choice([0, 1]) if rl["iterations"] > 1 else 0
    rl.update(maybe(draw, {
        "reward": ["progress", "delta", "raw", "raw_literal", "sparse", "env"], "curriculum": ["uniform", "levels", "frontier-centred", "frontier", "fixed"],
        "advantage": ["gae", "group", "rloo", "reinforce++"], "dynamic_sampling": [0, 1], "critic": ["shared", "none"],
        "timeout": ["terminal", "bootstrap"], "temperature": [.7, 1.3], "epochs": [2], "ratio": ["action", "token"],
        "loss_mean": ["step", "episode"], "clip_dual": [3], "kl": ["exact", "k3", "k2", "k1_reward", "none"], "entropy_coef": [.01],
        "value_clip": [.2], "value_huber": [1], "value_detach": [True, False], "critic_time": [True, False], "critic_prm": [True, False],
        "target_kl": [0, .02], "max_updates": [2], "max_staleness": [1, 2], "prm_refresh": [1, 2], "on_hack": ["pause", "refresh"],
        "w_progress_decay": [2], "value_epochs": [2], "lr_ramp": [3]}, .12))
    if rl["eval_every"]:
        rl.update(maybe(draw, {"stop_success": [.5], "stop_patience": [1], "stop_collapse": [.3]}, .12))
    return {"rl": rl}


def draw_eval(draw):
    stage = {"episodes": draw.choice([1, 2, 4]), "policies": draw.sample(["demonstrator", "sft", "best", "last"], draw.randint(1, 3)),
             "temperatures": [1.0], "val_episodes": 2, "search_episodes": 2,
             "search_execute": draw.choice([1, 2])}
    stage.update(maybe(draw, {
        "n": [[1, 2], [3]], "search_method": ["search_n", "sample_n", "refine"], "search_judge": ["prm", "value", "confidence", "oracle", "random"],
        "search_horizon": [2, 3], "search_controls": [["greedy"], ["random", "shuffled"]], "perturb": ["push", "drop", "offset"],
        "beside": [False], "on_val": [True], "first_state": [3], "max_steps": [30], "search_score": ["mean"], "search_proposals": ["gaussian"]}, .2))
    return {"eval": stage}


def draw_stages(draw):
    sft = {"steps": draw.randint(2, 5), "batch": 8, "warmup": 1, **maybe(draw, {"commit_every": [1, 2], "augment": [True]})}
    prm = {"steps": draw.randint(2, 4), "batch": 8, "holdout": .3, "force": True, **maybe(draw, {"labels": ["milestone"], "demo_fraction": [0, 1], "width": [16]})}
    rollouts = {"episodes": draw.choice([12, 20]), **maybe(draw, {"temperature": [0, 1.2]})}
    stages = [{"demos": {"episodes": draw.choice([3, 6]), "style": draw.choice(["clean", "slow"])}}]
    if draw.random() < .8:
        stages.append({"sft": sft})
    if draw.random() < .8:
        stages.append({"rollouts": rollouts})
        if draw.random() < .95:
            stages.append({"prm": prm})
        if draw.random() < .2:
            stages.append({"rollouts": {**rollouts, **maybe(draw, {"score": [True]}, .5)}})
            stages.append({"sft": {**sft, "from": draw.choice(["rollouts", "both"]), "choose": draw.choice(["all", "success", "score"]), "least_score": 0}})
    for _ in range(draw.choice([0, 1, 1, 1, 2])):
        stages.append(draw_rl(draw))
    if draw.random() < .5:
        stages.append(draw_eval(draw))
    return stages


def draw_settings(draw, models):
    prm = maybe(draw, {"every": [2, 5], "history": [1, 2]}, .25)
    if draw.random() < .15:
        prm.update(init=str(TOP / "tests/golden/nano_qwen"), train=draw.choice(["head", "lora"]))
    suite = {"tasks": draw.sample(TASKS, draw.choice([1, 1, 2, 3])),
             **maybe(draw, {"max_steps": [12, 25], "draw": ["all"], "cameras": [2], "state": [True]}, .25)}
    settings = {
        "run": {"seed": draw.randrange(1 << 32), **maybe(draw, {"numerics": ["fast"]}, .15)}, "suite": suite, "policy": draw_policy(draw, models), "prm": prm,
        "cluster": {"env_workers": draw.choice([1, 2]), "slots": draw.choice([1, 3, 4]), "actors": [{"device": "cpu"}] * draw.choice([1, 1, 2]),
                    "prm_servers": [{"device": "cpu"}] * draw.choice([1, 1, 2]), "learners": [{"device": "cpu"}] * draw.choice([1, 1, 1, 2])},
        "journal": maybe(draw, {"keep": [1, 5]})}
    return settings, draw_stages(draw)


def make_models(root):
    """The demo's start policy, what OpenVLA-OFT makes of it, and all of them in bf16."""
    models = {"plain": TOP / "models/tiny"}
    for kind in ("l1", "tokens", "laplace"):
        models[kind] = root / kind
        made = gantry("model", "oft", models["plain"], models[kind], "--kind", kind, "--chunk", 3, *([] if kind == "tokens" else ["--width", 32]))
        assert made.returncode == 0, made.stderr
    for kind, path in list(models.items()):
        models[kind + "-bf16"] = root / f"{kind}-bf16"
        made = gantry("model", "convert", path, models[kind + "-bf16"], "--dtype", "bf16")
        assert made.returncode == 0, made.stderr
    return models


# ---- how it is run ----

def is_reproducible(cluster):
    rl = [stage["rl"] for stage in cluster.settings["stages"] if "rl" in stage]
    return cluster.settings["run"]["numerics"] == "strict" and not any(r.get("max_staleness") or r.get("prm_refresh") or r.get("on_hack") for r in rl)


def weights(run):
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(run.glob("p*s/*/*.safetensors"))}


def disturb(cluster, draw):
    """One kill: of a daemon, or of `gantry up`, which is then started again."""
    pids = children(cluster.supervisor.pid)
    if not pids or draw.random() < .1:
        cluster.supervisor.kill()
        cluster.supervisor.wait()
        cluster.up()
        return
    try:
        draw.choice(pids) and subprocess.run(["kill", "-KILL", str(draw.choice(pids))], capture_output=True)
    except ProcessLookupError:
        pass


def play(cluster, draw, kills):
    """To the end, or what `gantry up` said. Time of its own between kills."""
    cluster.up()
    begun = time.monotonic()
    next_kill = begun + draw.uniform(.2, 2.5)
    while True:
        try:
            status = cluster.supervisor.wait(.05)
            return "" if status == 0 else f"`gantry up` ended with {status}: " + (cluster.root / "up.log").read_text(errors="replace")[-600:]
        except subprocess.TimeoutExpired:
            pass
        if time.monotonic() - begun > PATIENCE:
            return f"it has not ended after {PATIENCE} s\n{cluster.logs(8)}"
        if kills and time.monotonic() > next_kill:
            disturb(cluster, draw)
            kills -= 1
            next_kill = time.monotonic() + draw.uniform(.2, 2.5)


def judge(cluster):
    check = gantry("history", "check", cluster.run)
    report = gantry("report", cluster.run, "-o", cluster.root / "report.html")
    said = "".join(log.read_text(errors="replace") for log in (cluster.run / "log").glob("*.log"))
    odd = [line for line in said.splitlines() if "level=error" in line or "without asking" in line]
    return "\n".join(filter(None, [check.returncode and check.stdout + check.stderr, report.returncode and report.stderr, *odd[:3]]))


def one(number, args, models):
    """-> (what became of it, what is wrong with it)."""
    draw = random.Random(f"{args.seed} {number}")
    settings, stages = draw_settings(draw, models)
    clusters, wrong = [], ""
    try:
        for _ in range(2):
            config = merged(copy.deepcopy(TINY), copy.deepcopy(settings))
            config["stages"] = stages
            clusters.append(Cluster(scratch(), config))
        check = gantry("config", "check", clusters[0].config)
        said = check.stdout + check.stderr
        if check.returncode:
            print(said.replace(str(clusters[0].root), ""))
            return "refused", "" if check.returncode == 1 and said.count("run.yaml:") else said
        wrong = play(clusters[0], draw, 0)
        if "gantry: refused" in wrong or "policy.init" in wrong:
            return "refused at its start", "" if not (clusters[0].run / "journal").exists() else wrong
        wrong = wrong or judge(clusters[0])
        if wrong:
            return "undisturbed", wrong
        wrong = play(clusters[1], draw, args.kills) or judge(clusters[1])
        if not wrong and is_reproducible(clusters[0]) and weights(clusters[0].run) != weights(clusters[1].run):
            wrong = "its weights are others after kills: " + str(sorted(dict(set(weights(clusters[0].run).items()) ^ set(weights(clusters[1].run).items())))[:6])
        return "under kills" if wrong else "the same" if is_reproducible(clusters[0]) else "done", wrong
    finally:
        for cluster in clusters:
            cluster.close()
            if wrong and args.keep:
                shutil.copytree(cluster.root, Path(args.keep) / f"{number}-{clusters.index(cluster)}", ignore=shutil.ignore_patterns("sock"))
            shutil.rmtree(cluster.root, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--keep", help="a directory for what went wrong")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    root, counts = scratch(), {}
    try:
        models = make_models(root)
        for number in [args.only] if args.only is not None else range(args.first, args.first + args.runs):
            begun = time.monotonic()
            outcome, wrong = one(number, args, models)
            counts[outcome + (": WRONG" if wrong else "")] = counts.get(outcome + (": WRONG" if wrong else ""), 0) + 1
            print(f"{number}: {outcome} ({time.monotonic() - begun:.0f} s){': ' + wrong if wrong else ''}", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(json.dumps(counts))
    sys.exit(any("WRONG" in outcome for outcome in counts))


if __name__ == "__main__":
    main()
