"""Where the time of the workflow's runs went: Snakemake's logs, Slurm's accounting and benchmark files as one page."""
