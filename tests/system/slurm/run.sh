#!/bin/bash
# run.sh TOP OUT - brings up a small real Slurm and runs gantry on it as `gantry deploy slurm` says: OUT/run.yaml. Root.
#
# Network, processes and /proc are of our own namespaces: nothing outside is seen or touched, and everything ends with us. With only
# `lo` up host names do not resolve and Slurm hangs, hence the address on an empty bridge.
set -u
if [ -z "${INNER:-}" ]; then
    INNER=1 exec unshare --net --pid --fork --kill-child --mount-proc bash -c \
        'ip link set lo up; ip link add ci0 type bridge; ip addr add 10.99.0.1/24 dev ci0; ip link set ci0 up; bash "$0" "$@"' "$0" "$@"
fi
top=$1 out=$2 here=$(dirname "$(readlink -f "$0")")
export R=$out/slurm N=3
run=$out/run failed=0
exec >"$out/result.log" 2>&1
check() { local what=$1; shift; if "$@"; then echo "ok   $what"; else echo "FAIL $what"; failed=1; fi; }
until_() { local end=$((SECONDS + $1)); shift; until eval "$@"; do [ $SECONDS -lt $end ] || return 1; read -rt 0.1 <> <(:); done; return 0; }
gantry() { "$top/bin/gantry" "$@"; }
alive() { gantry status --json "$run" 2>/dev/null | python3 -c '
import json, sys
members = [x["member"] for x in json.load(sys.stdin)["members"] if x["role"] == sys.argv[1] and x["state"] == "alive"]
print(members[0] if len(sys.argv) > 2 else len(members))' "$@" 2>/dev/null; }
workers() { alive env_worker; }
delivered() { gantry status --json "$run" 2>/dev/null | python3 -c 'import json, sys; print(json.load(sys.stdin)["episodes"]["journaled"])' 2>/dev/null || echo 0; }
epoch() { gantry status --json "$run" 2>/dev/null | python3 -c 'import json, sys; print(json.load(sys.stdin)["epoch"])' 2>/dev/null || echo 0; }
. "$here/cluster.sh"

slurm_up || { echo "Slurm did not come up"; cat "$R"/log/slurmctld.log; exit 1; }

# Nodes without the programs: each job says so in one line and ends with 78; nothing is begun in the run's directory.
for script in core workers; do
    none=$(sbatch --parsable --export="ALL,GANTRY_CONFIG=$out/run.yaml,GANTRY_RUN=$run,GANTRY_BIN=/nowhere" --output="$out/none-$script.log" \
        "$top/deploy/slurm/gantry-$script.sbatch")
    check "$script job on a node without gantry ends with 78" until_ 60 'scontrol show job '"$none"' | grep -q "ExitCode=78:0"'
    check "and says: $(cat "$out/none-$script.log")" grep -qx ".*: /nowhere/gantry is not there: install gantry on every node" "$out/none-$script.log"
    check "in one line" [ "$(wc -l <"$out/none-$script.log")" = 1 ]
done
check "nothing has begun" [ ! -e "$run" ]

gantry deploy slurm --config "$out/run.yaml" --submit --max-workers 4 -- --time=30 >"$out/submitted" || echo "FAIL submit"
cat "$out/submitted"
core=$(grep -E '^[0-9]+$' "$out/submitted" | sed -n 1p) array=$(grep -E '^[0-9]+$' "$out/submitted" | sed -n 2p)
check "core job and workers run" until_ 60 '[ "$(workers)" = 2 ] && [ "$(delivered)" -gt 0 ]'

# One is sent away by hand: it is not queued again, nor does the next task of the array take its place until more are wanted.
throttle() { scontrol show job "$array" | sed -n 's/.*ArrayTaskThrottle=\([0-9]*\).*/\1/p' | head -1; }
until_ 60 'member=$(alive env_worker member) && [ -n "$member" ]'       # under load one may be missed for a moment
gantry drain "$run" "$member"
check "its task ends" until_ 60 '[ "$(scontrol show job '"$array"' | grep -c "JobState=COMPLETED")" = 1 ]'
check "its place is not for others: $(throttle)" [ "$(throttle)" = 1 ]
check "one plays on" until_ 60 '[ "$(workers)" = 1 ]'
scontrol update JobId="$array" ArrayTaskThrottle=3
check "two more come" until_ 60 '[ "$(workers)" = 3 ]'
check "others than the one that was sent away" [ "$(scontrol show job "$array" | grep -c "JobState=COMPLETED")" = 1 ]

# The time limit is near: it drains, queues again, and goes on. (Slurm delays what is queued again by two minutes; an operator may ask for less.)
before=$(epoch)
scancel --batch --signal=USR1 "$core"
check "drained and queued again" until_ 60 '[ "$(squeue -h -j '"$core"' -o %T)" = PENDING ]'
check "its status says what will go on" until_ 60 'gantry status "$run" 2>&1 | grep -q "Slurm.s job '"$core"' goes on when its turn comes"'
soon() { scontrol update JobId="$core" StartTime=now+4; }      # at once, the node would still refuse the credential of the life before
soon
check "a later life goes on" until_ 60 '[ "$(epoch)" -gt '"$before"' ] && [ "$(workers)" -ge 1 ]'
check "the run knows its life: $(cat "$run/life")" grep -qx "$core 1" "$run/life"

# Split brain: the node's slurmd goes away, its processes do not. The requeued life takes over, the earlier one ends by itself.
node=$(squeue -h -j "$core" -o %N) pid=$(pgrep -f "gantry up --env-workers" | head -1) before=$(epoch)
kill -9 "$(cat "$R/run/slurmd-$node.pid")"
check "Slurm gives the node up" until_ 60 '[ "$(squeue -h -j '"$core"' -o %T)" = PENDING ]'
check "the processes there go on" kill -0 "$pid"
soon
check "the next life has the run" until_ 60 'grep -qx "'"$core"' 2" "$run/life" && [ "$(epoch)" -gt '"$before"' ]'
check "the earlier one has ended" until_ 60 '! kill -0 '"$pid"' 2>/dev/null'
check "workers play on" until_ 60 '[ "$(workers)" -ge 1 ]'
gantry drain "$run"
check "drained by hand, all jobs end" until_ 60 '[ -e "$run/ended" ] && [ -z "$(squeue -h -t R,CG)" ]'
check "nothing lost, nothing twice: $(gantry history check "$run" 2>&1 | tail -1)" gantry history check "$run" >/dev/null

# A heterogeneous job: two actors more, on another node. Workers of before that have not seen that the run has ended would play, too: those that
# are queued again, and those that Slurm cannot reach on the node it gave up.
scancel "$array"
check "the workers of before are gone" until_ 60 '[ -z "$(squeue -h -j '"$array"' 2>/dev/null)" ] && ! pgrep -f "slurm_script|gantry-env-worker" >/dev/null'
gantry deploy slurm --config "$out/run.yaml" --submit --actors 2 -- --time=30 >"$out/submitted"
check "goes on with three actors" until_ 60 '[ "$(alive actor)" = 3 ] && [ "$(workers)" = 2 ]'
gantry drain "$run"
check "and drained again" until_ 60 '[ -e "$run/ended" ] && [ -z "$(squeue -h -t R,CG)" ]'

# scancel is the end: of one worker's task, and, with the core job, of the workers, too. Nothing is queued again. (Slurm's KillWait lets the
# scripts finish; a script that is killed could not queue anything.) Who has Slurm queue the core job again finds the workers waiting.
gantry deploy slurm --config "$out/run.yaml" --submit -- --time=30 >"$out/submitted"
core=$(grep -E '^[0-9]+$' "$out/submitted" | sed -n 1p) array=$(grep -E '^[0-9]+$' "$out/submitted" | sed -n 2p)
check "and goes on once more" until_ 60 '[ "$(workers)" = 2 ]'
scancel "${array}_0"
check "a cancelled worker's task is gone" until_ 60 '[ "$(squeue -h -r -j '"$array"' -o %T)" = RUNNING ]'
scontrol requeue "$core"
check "the core job is queued again" until_ 60 '[ "$(squeue -h -j '"$core"' -o %T)" = PENDING ]'
check "its worker waits" [ "$(squeue -h -r -j "$array" -o %T)" = RUNNING ]
before=$(grep -c up "$run/log/coordinator.log")
soon
check "and plays in the next life" until_ 60 '[ "$(workers)" = 1 ] && [ "$(grep -c up "$run/log/coordinator.log")" -gt '"$before"' ]'
scancel "$core"
check "a cancelled run is over" until_ 60 '[ -e "$run/ended" ] && [ -z "$(squeue -h)" ]'
check "and drained: $(tail -n 1 "$run/log/slurm-core.log")" grep -q "drained before its end" "$run/log/slurm-core.log"
check "still nothing lost, nothing twice" gantry history check "$run"
[ $failed = 0 ] || { squeue; tail -n 30 "$run"/log/*.log; }
echo $failed >"$out/rc"
slurm_down
