#!/bin/bash
# inside.sh - as a service of a real systemd, in the container that run.sh made: start, kill, hang, more workers, ordered stop.
exec >/out/result.log 2>&1
failed=0 run=$(sed -n 's/^GANTRY_RUN=//p' /etc/gantry/gantry.env)
since() { awk -v a="$(date +%s.%N)" -v b="$1" 'BEGIN { printf "%.1f s", a - b }'; }
check() { local what=$1; shift; if "$@"; then echo "ok   $what"; else echo "FAIL $what"; failed=1; fi; }
until_() { local end=$((SECONDS + $1)); shift; until eval "$@"; do [ $SECONDS -lt $end ] || return 1; read -rt 0.05 <> <(:); done; return 0; }
show() { systemctl show -P "$2" "$1"; }
members() { gantry status --json "$run" 2>/dev/null | python3 -c '
import json, sys
m = [x for x in json.load(sys.stdin)["members"] if x["role"] == sys.argv[1] and x["state"] == "alive"]
print(len(m))' "$1" 2>/dev/null; }
units="gantry-coordinator gantry-learner@0 gantry-actor@0 gantry-env-worker@0"

complaints=$(systemd-analyze verify --man=no /usr/lib/systemd/system/gantry.target /usr/lib/systemd/system/gantry-coordinator.service \
    /usr/lib/systemd/system/gantry-{learner,actor,prm-server,env-worker}@.service 2>&1 | grep gantry)
check "units are right: $complaints" [ -z "$complaints" ]

t=$(date +%s.%N)
systemctl start gantry.target
check "all active" until_ 60 '[ "$(systemctl is-active $units | grep -cx active)" = 4 ]'
echo "     in $(since "$t"); $(show gantry-coordinator StatusText); user $(ps -o user= -p "$(show gantry-coordinator MainPID)")"
page() { python3 -c 'import sys, urllib.request as u; print(u.urlopen("http://127.0.0.1:8080/status.json" + sys.argv[1]).status)' "$1" 2>&1; }
check "the page asks for the token, which only root can read" grep -q "401" <(page "")
check "and answers who has it" [ "$(page "?token=what-the-page-asks-for")" = 200 ]
check "the worker is a member" until_ 30 '[ "$(members env_worker)" = 1 ]'

for u in $units; do
    pid=$(show "$u" MainPID) t=$(date +%s.%N)
    kill -9 "$pid"
    check "$u: kill -9, active again" until_ 30 '[ "$(show '"$u"' ActiveState)" = active ] && [ "$(show '"$u"' MainPID)" != '"$pid"' ]'
    echo "     in $(since "$t")"
done
check "all members again" until_ 40 '[ "$(members learner)$(members actor)$(members env_worker)" = 111 ]'

# A loop that hangs: no WATCHDOG=1 any more.
mkdir -p /run/systemd/system/gantry-coordinator.service.d
printf '[Service]\nWatchdogSec=2\nEnvironment=GANTRY_FAULTS=ledger.committed=delay:600000@20\n' >/run/systemd/system/gantry-coordinator.service.d/hang.conf
systemctl daemon-reload
systemctl kill -s KILL gantry-coordinator
check "the coordinator hangs, the watchdog ends it" until_ 60 'journalctl -b -u gantry-coordinator -o cat --no-pager | grep -q "Watchdog timeout"'
rm -r /run/systemd/system/gantry-coordinator.service.d
systemctl daemon-reload
check "and it is active again" until_ 30 '[ "$(show gantry-coordinator ActiveState)" = active ] && gantry status --json "$run" >/dev/null 2>&1'

t=$(date +%s.%N)
systemctl start gantry-env-worker@{10..29}
echo "     twenty more: active in $(since "$t")"
check "they join" until_ 120 '[ "$(members env_worker)" = 21 ]'
echo "     in $(since "$t"); $(pgrep gantry-env-work | sed 's,.*,/proc/&/smaps_rollup,' | xargs awk '/^Pss:/ { n += $2 } END { print int(n / 1024) }') MB for 21 workers"

# One is drained by hand: it stays away until it is started by hand.
gone() { journalctl -b -o cat --no-pager -u 'gantry-env-worker@*' | grep -c 'msg="draining" reason="sent away by an operator"'; }
gantry drain "$run" "$(gantry status --json "$run" | python3 -c '
import json, sys
print(max(x["member"] for x in json.load(sys.stdin)["members"] if x["role"] == "env_worker"))')"
check "one is sent away" until_ 60 '[ "$(gone)" = 1 ] && [ "$(members env_worker)" = 20 ]'
check "and not started again" [ "$(systemctl list-units --state=active --no-legend 'gantry-env-worker@*' | wc -l)" = 20 ]
systemctl start gantry-env-worker@{10..29}
check "but by hand" until_ 60 '[ "$(members env_worker)" = 21 ]'
t=$(date +%s.%N)
systemctl stop gantry-env-worker@{10..29}
echo "     twenty stopped in $(since "$t")"
check "and leave: status 0, none failed" [ "$(systemctl list-units --failed --no-legend 'gantry-*' | wc -l)" = 0 ]

# A drain holds though the coordinator dies in it, with an episode still being played; who starts the units again goes on.
pid=$(show gantry-coordinator MainPID)
systemctl kill -s STOP gantry-env-worker@0
gantry drain "$run" >/dev/null
kill -9 "$pid"
check "draining, the coordinator is killed, active again" until_ 30 '[ "$(show gantry-coordinator ActiveState)" = active ] && [ "$(show gantry-coordinator MainPID)" != '"$pid"' ]'
systemctl kill -s CONT gantry-env-worker@0
check "and drains" until_ 60 '[ -z "$(systemctl list-units --state=active,activating,deactivating --no-legend "gantry-*.service")" ]'
systemctl start gantry.target
check "started by hand, the run goes on" until_ 60 '[ "$(members learner)$(members actor)$(members env_worker)" = 111 ]'

t=$(date +%s.%N)
systemctl stop gantry.target
check "everything stops" until_ 60 '[ -z "$(systemctl list-units --state=active,deactivating --no-legend "gantry-*.service")" ]'
echo "     in $(since "$t")"
order=$(journalctl -b -o cat --no-pager _PID=1 | sed -n 's/^Stopped \(gantry-[a-z-]*\).*/\1/p' | tail -4 | tr '\n' ' ')
check "workers first, the coordinator last: $order" [ "$order" = "gantry-env-worker gantry-actor gantry-learner gantry-coordinator " ]
check "no unit failed" [ "$(systemctl list-units --failed --no-legend 'gantry-*' | wc -l)" = 0 ]
check "nothing lost, nothing twice: $(gantry history check "$run" 2>&1 | tail -1)" gantry history check "$run" >/dev/null
[ $failed = 0 ] || journalctl -b --no-pager -u 'gantry-*' | tail -60
echo "$failed" >/out/rc
systemctl --force poweroff
