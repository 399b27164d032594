#!/bin/bash
# bench_tabletop.sh - reinforcement learning on pick_up_object end to end: gantry's daemons beside PyTorch, same machine, same run.
#
#   tests/bench/bench_tabletop.sh PYTHON        a Python that has torch, mujoco==3.3.2 and numpy (a scratch environment)
#
# Both sides have two cores: PyTorch as two independent processes of one thread (its best use of them), gantry as its daemons.
# Same model dims, pictures, physics, episodes per iteration (32) and limit (24); PPO with reference, critic and a reward model.
# Prints env steps per second of both and their ratio, for rollouts alone and for everything.
set -eu
cd "$(dirname "$0")/../.."
python=${1:?usage: bench_tabletop.sh PYTHON}
iterations=${ITERATIONS:-8}
scratch=$(mktemp -d /tmp/gantry-bench.XXXXXX)
trap 'rm -rf "$scratch"' EXIT

cat > "$scratch/run.yaml" <<Y
run:    {name: bench, dir: $scratch/run, seed: 3, numerics: strict}
suite:  {name: tabletop, tasks: [pick_up_object], image: 64}
policy: {init: models/tiny, train: full}
stages:
  - rollouts: {episodes: 256}
  - prm:      {steps: 10, force: true}
  - rl:       {iterations: $iterations, episodes: 32, preset: tabletop, critic_warmup: 0, eval_every: 0, target_kl: 0}
cluster: {env_workers: 2, slots: 8, actors: [{device: cpu, threads: 2}], prm_servers: [{device: cpu, threads: 2}], learners: [{device: cpu, threads: 2}]}
Y
bin/gantry up "$scratch/run.yaml" > "$scratch/up.log" || { cat "$scratch/up.log"; exit 1; }
bin/gantry report "$scratch/run" > /dev/null

torch() {       # two processes at once; prints the sum of their rates for a field
    for i in 1 2; do "$python" tests/bench/torch_tabletop.py lib/sim/suites/tabletop --iterations 3 $1 > "$scratch/torch$i" & done
    wait
    grep -ho "$2 [0-9]*" "$scratch"/torch[12] | awk '{sum += $NF} END {print sum}'
}
rollout=$(torch --rollout-only rollout)
whole=$(torch "" "end to end")
"$python" - "$scratch/run/summary.json" "$rollout" "$whole" <<'P'
import json, sys
ours = json.load(open(sys.argv[1]))["env_steps_per_s"]
for name, a, b in (("rollout", ours.get("rollouts"), float(sys.argv[2])), ("end to end", ours.get("rl"), float(sys.argv[3]))):
    print(f"{name:11s} gantry {a:6.0f}  PyTorch x2 {b:6.0f} env steps/s  ratio {a / b:.2f}")
P
