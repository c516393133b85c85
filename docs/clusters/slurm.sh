#!/usr/bin/env bash
# sbatch docs/clusters/slurm.sh +sweep=NAME [OVERRIDE ...]
# One Ray node a Slurm node. A requeued or resubmitted job resumes the sweep.
#SBATCH --job-name=kerzoo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --output=slurm-%j.log
set -euo pipefail

cd "${SLURM_SUBMIT_DIR}"
source .venv/bin/activate
export RAY_USAGE_STATS_ENABLED=0
export RAY_AUTH_MODE=token # others use these machines too
[[ -e "${HOME}/.ray/auth_token" ]] || ray get-auth-token --generate > /dev/null

head=$(scontrol show hostnames "${SLURM_JOB_NODELIST}" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="${head}" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000))
cpus=${SLURM_CPUS_PER_TASK:-1}
gpus=${SLURM_GPUS_ON_NODE:-0}

srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="${cpus}" --nodelist="${head}" \
    ray start --head --node-ip-address="${address}" --port="${port}" \
    --num-cpus="${cpus}" --num-gpus="${gpus}" --include-dashboard=false --block &
sleep 20
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks-per-node=1 \
        --cpus-per-task="${cpus}" --exclude="${head}" \
        ray start --address="${address}:${port}" \
        --num-cpus="${cpus}" --num-gpus="${gpus}" --block &
fi

# Slurm signals this shell two minutes before the end; the driver saves and leaves.
RAY_ADDRESS="${address}:${port}" python sweep.py "$@" cluster=auto &
driver=$!
trap 'kill -TERM "${driver}"' TERM
code=0
wait "${driver}" || code=$?
if ((code > 128)) && kill -0 "${driver}" 2>/dev/null; then
    code=0
    wait "${driver}" || code=$?
fi
exit "${code}"
