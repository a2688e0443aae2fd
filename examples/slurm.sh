#!/bin/bash
# Two machines with four GPUs each: sbatch slurm.sh c.yaml
#SBATCH --job-name=imgcls
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=SIGUSR1@90 # 90 s before the end: the run saves its state, is requeued and resumes

srun imgcls fit --config "$1" \
  --trainer.accelerator gpu --trainer.devices 4 --trainer.num_nodes "$SLURM_NNODES" --trainer.strategy ddp
