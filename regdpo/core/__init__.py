"""What all rooms stand on: errors, progress, manifests, digests, the store. Neither torch nor Snakemake."""
