# The page on which people compare base and arms. It makes no file of the workflow: answers are kept apart.
rule rate:
    input:
        pairs=rules.gt_pairs.output.manifest,
        samples=expand(f"{RESULTS}/samples/{{model}}.parquet", model=["real", *MODELS]),
    log:
        f"{LOGS}/rate.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    shell:
        # To the terminal, not to the log: the address holds the key to the page.
        "stage rate > {log:q}"
