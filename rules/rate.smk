# The page on which people compare base and arms. It makes no file of the workflow: answers are kept apart.
rule rate:
    input:
        pairs=rules.pairs.input,
        samples=[
            rules.real_samples.output.manifest,
            *expand(rules.render_samples.output.manifest, of=BASES, model=MODELS),
        ],
    log:
        f"{LOGS}/rate.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    shell:
        # To the terminal, not to the log: the address holds the key to the page.
        "stage rate > {log:q}"
