"""torchx: a training on one machine, over several, or as a Slurm job; from its start to its end."""
