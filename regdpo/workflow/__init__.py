"""What the rules need, and the only package that knows how Snakemake names things."""
