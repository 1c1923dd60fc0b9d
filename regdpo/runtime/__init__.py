"""The machine and the cluster: GPUs, processes, leases, Slurm, the hub's cache. Torch only where GPUs are asked for."""
