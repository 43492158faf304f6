#!/bin/bash

# Parameters
#SBATCH --chdir=/scratch/ada/runs/demo-0a1b2c3d/stages/sft
#SBATCH --comment=launcher:demo-0a1b2c3d:sft:f00d
#SBATCH --cpus-per-task=8
#SBATCH --export=HOME,USER,LOGNAME,SHELL,PATH,LANG,LC_ALL,TZ,SLURM_CONF,LD_LIBRARY_PATH,HF_HOME,HF_HUB_CACHE,XDG_CACHE_HOME,TORCH_EXTENSIONS_DIR
#SBATCH --gres=gpu:h100:8
#SBATCH --job-name=demo-0a1b2c3d.sft
#SBATCH --mem=524800M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/scratch/ada/runs/demo-0a1b2c3d/stages/sft/logs/%j_0_log.out
#SBATCH --partition=eighty
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=600

# setup
umask 077
export PYTHONPATH=/scratch/ada/runs/demo-0a1b2c3d/code
trap -- '[ -n "$launcher_ended_well" ] || timeout --kill-after=15 60 /opt/env/bin/python -m launcher.cli.main advance /scratch/ada/runs/demo-0a1b2c3d --ended "$SLURM_JOB_ID" < /dev/null' EXIT

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /scratch/ada/runs/demo-0a1b2c3d/stages/sft/logs/%j_%t_log.out --export=ALL --cpus-per-task=8 --kill-on-bad-exit=1 /opt/env/bin/python -u -m launcher.scheduler.entry /scratch/ada/runs/demo-0a1b2c3d sft f00d && launcher_ended_well=yes
