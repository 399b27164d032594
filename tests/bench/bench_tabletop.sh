#!/bin/bash
# bench_tabletop.sh - reinforcement learning on pick_up_object end to end: gantry's daemons beside PyTorch, same machine, same run.
#
#   [NUMERICS=fast] [ITERATIONS=12] [SLOTS=16] tests/bench/bench_tabletop.sh PYTHON
#
# PYTHON has torch, mujoco==3.3.2 and numpy (a scratch environment). Both sides have two cores: PyTorch as two independent processes
# of one thread (its best use of them; the sum of their rates), gantry as its daemons. Same model dims, pictures, physics, episodes
# per iteration (32) and limit (24); PPO with reference, critic and a reward model. Rollouts are scored on both sides; both leave
# their first iteration out. Beside rates: CPU time per env step of all processes, which does not depend on who else wants a core.
set -eu
cd "$(dirname "$0")/../.."
python=${1:?usage: bench_tabletop.sh PYTHON}
scratch=$(mktemp -d /tmp/gantry-bench.XXXXXX)
trap 'rm -rf "$scratch"' EXIT

cat > "$scratch/run.yaml" <<Y
run:    {name: bench, dir: $scratch/run, seed: 3, numerics: ${NUMERICS:-strict}}
suite:  {name: tabletop, tasks: [pick_up_object], image: 64}
policy: {init: models/tiny, train: full}
stages:
  - rollouts: {episodes: 64}
  - prm:      {steps: 10, force: true}
  - rollouts: {episodes: 320, score: true}
  - rl:       {iterations: ${ITERATIONS:-12}, episodes: 32, preset: tabletop, critic_warmup: 0, eval_every: 0, target_kl: 0}
cluster: {env_workers: 2, slots: ${SLOTS:-16}, actors: [{device: cpu, threads: 2}], prm_servers: [{device: cpu, threads: 2}], learners: [{device: cpu, threads: 2}]}
Y
"$python" tests/bench/tabletop_cost.py "$scratch/run" "$scratch/cost.json" -- bin/gantry up "$scratch/run.yaml" 2> "$scratch/up.log" ||
    { cat "$scratch/up.log"; exit 1; }

torch() {       # two processes at once
    for i in 1 2; do "$python" tests/bench/torch_tabletop.py lib/sim/suites/tabletop --iterations 3 "${@:2}" > "$scratch/$1$i" & done
    wait
}
torch rollouts --rollout-only
torch rl
"$python" - "$scratch" <<'P'
import json, re, sys
scratch = sys.argv[1]
ours = json.load(open(f"{scratch}/cost.json"))
for stage, name, rate in (("rollouts", "rollout, scored", "rollout"), ("rl", "end to end", "end to end")):
    said = [open(f"{scratch}/{stage}{i}").read() for i in (1, 2)]
    theirs = sum(float(re.search(rate + r" (\d+)/s", s)[1]) for s in said)
    cpu = sum(float(re.search(r"cpu ms a step ([\d.]+)", s)[1]) for s in said) / 2
    mine = ours[stage]
    print(f"{name:15s} env steps/s: gantry {mine['steps_per_s']:5.0f}  PyTorch x2 {theirs:5.0f}  ratio {mine['steps_per_s'] / theirs:.2f}"
          f"   CPU ms a step: {mine['cpu_ms_per_step']:5.2f}  {cpu:5.2f}  ratio {cpu / mine['cpu_ms_per_step']:.2f}"
          f"   (of two cores {mine['cpu_ms_per_step'] * mine['steps_per_s'] / 20:.0f} %)")
    print(" " * 16 + "  ".join(f"{role} {ms:.2f}" for role, ms in mine["by_role"].items()))
P
