#!/usr/bin/env bash
# slurm-node.sh up DIR | down DIR | stop-node DIR | start-node DIR : a real Slurm of one node with
# two fake GPUs, without systemd and without a database. Needs root, and Debian's packages
# slurm-wlm slurm-wlm-basic-plugins munge.
set -euo pipefail
verb=$1
dir=$(realpath -m "$2")
host=$(hostname -s)

stop() { # PIDFILE ; waits, as a daemon that ends takes its socket with it
  local pid
  [[ -s $1 ]] || return 0
  pid=$(<"$1")
  kill "$pid" 2>/dev/null || return 0
  for _ in $(seq 100); do
    # A zombie is gone: nobody waits for a daemon where there is no init.
    [[ -e /proc/$pid && $(awk '{print $3}' "/proc/$pid/stat" 2>/dev/null) != Z ]] || return 0
    sleep 0.1
  done
}
wait_for() { # STATE
  for _ in $(seq 200); do
    [[ $(timeout 5 sinfo -h -p cpu -o %t 2>/dev/null) == "$1" ]] && return
    sleep 0.1
  done
  echo "the node is not $1: $(sinfo -h -p cpu -o %t 2>&1); see $dir/log" >&2
  exit 1
}

case $verb in
  down)
    for name in slurmd slurmctld munged; do stop "$dir/run/$name.pid"; done
    for name in slurm gres; do
      link=/etc/slurm/$name.conf
      if [[ -L $link && $(readlink $link) == "$dir/$name.conf" ]]; then rm $link; fi
    done
    exit
    ;;
  stop-node) # as a node that hangs: its jobs live on, the controller hears nothing
    stop "$dir/run/slurmd.pid"
    exit
    ;;
  start-node)
    slurmd
    exit
    ;;
  up) ;;
  *)
    echo "usage: slurm-node.sh up|down|stop-node|start-node DIR" >&2
    exit 2
    ;;
esac

mkdir -p "$dir"/{state,spool,run,log} /etc/slurm
for name in slurm gres; do
  if [[ -e /etc/slurm/$name.conf && ! -L /etc/slurm/$name.conf ]]; then
    echo "/etc/slurm/$name.conf is there: this machine has a Slurm of its own" >&2
    exit 1
  fi
done
# munged refuses keys and sockets that others could have made.
install -d -o munge -g munge -m 755 /run/munge "$dir/munge"
[[ -s $dir/munge/key ]] || dd if=/dev/urandom of="$dir/munge/key" bs=1024 count=1 status=none
chown munge:munge "$dir/munge/key"
chmod 400 "$dir/munge/key"
for parent in "$dir" "$(dirname "$dir")" "$(dirname "$(dirname "$dir")")"; do chmod o+x "$parent"; done
runuser -u munge -- munged --force --key-file="$dir/munge/key" --pid-file="$dir/munge/munged.pid" \
  --log-file="$dir/munge/munged.log" --seed-file="$dir/munge/seed"
ln -sf "$dir/munge/munged.pid" "$dir/run/munged.pid"
for i in 0 1; do [[ -e $dir/run/gpu$i ]] || mknod "$dir/run/gpu$i" c 1 3; done
memory=$(awk '/MemTotal/{printf "%d", $2/1024*0.9}' /proc/meminfo)
cat >"$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
SlurmdParameters=config_overrides
SlurmdTimeout=300
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
MinJobAge=3600
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobcomp.log
EnforcePartLimits=ALL
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1,default_queue_depth=1000
KillWait=5
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(env -u OMP_NUM_THREADS nproc) RealMemory=$memory Gres=gpu:h100:2 State=UNKNOWN
PartitionName=cpu Nodes=$host Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=1000
PartitionName=gpu Nodes=$host MaxTime=1440 State=UP DefMemPerCPU=1000
CONF
echo "NodeName=$host Name=gpu Type=h100 File=$dir/run/gpu[0-1]" >"$dir/gres.conf"
ln -sf "$dir/slurm.conf" /etc/slurm/slurm.conf
ln -sf "$dir/gres.conf" /etc/slurm/gres.conf
slurmctld
slurmd
wait_for idle
