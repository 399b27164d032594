# cluster.sh - a Slurm of N nodes on the loopback, without systemd: sourced by run.sh.  slurm_up; ... slurm_down
# Everything lies below $R. Nodes n1..nN are slurmds of this machine; believed to have 8 CPUs each.
host=$(hostname -s)
export SLURM_CONF=$R/etc/slurm.conf

slurm_conf() {
    cat <<C
ClusterName=ci
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=17817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$R/run/munge.sock
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$R/state
SlurmdSpoolDir=$R/spool/%n
SlurmctldPidFile=$R/run/slurmctld.pid
SlurmdPidFile=$R/run/slurmd-%n.pid
SlurmctldLogFile=$R/log/slurmctld.log
SlurmdLogFile=$R/log/slurmd-%n.log
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobRequeue=1
SlurmctldTimeout=10
SlurmdTimeout=6
MessageTimeout=5
KillWait=30
MinJobAge=600
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
C
    for i in $(seq "$N"); do
        echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((17820 + i)) CPUs=8 State=UNKNOWN"
    done
    echo "PartitionName=main Nodes=n[1-$N] Default=YES MaxTime=INFINITE DefaultTime=10 State=UP"
}

slurm_up() {
    mkdir -p "$R"/{etc,run,log,state,spool}
    chmod 755 "$R" "$R/run"
    dd if=/dev/urandom of="$R/etc/munge.key" bs=1024 count=1 status=none
    chmod 600 "$R/etc/munge.key"
    munged --key-file="$R/etc/munge.key" --socket="$R/run/munge.sock" --pid-file="$R/run/munged.pid" --log-file="$R/log/munged.log" \
        --seed-file="$R/run/munge.seed" --force || return 1
    slurm_conf >"$SLURM_CONF"
    slurmctld -c || return 1
    for i in $(seq "$N"); do slurmd -N "n$i" || return 1; done
    until_ 60 '[ "$(sinfo -h -o %D -t idle 2>/dev/null)" = $N ]' || { sinfo -N -l; return 1; }
}

slurm_down() {
    # shellcheck disable=SC2046
    scancel -Q $(squeue -h -o %A 2>/dev/null) 2>/dev/null
    for f in "$R"/run/slurmd-*.pid "$R/run/slurmctld.pid" "$R/run/munged.pid"; do [ -f "$f" ] && kill "$(cat "$f")" 2>/dev/null; done
}
