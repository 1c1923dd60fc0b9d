# What tells winners and losers apart without looking at quality, from some of the pairs of the first base model.
rule compare_halves:
    input:
        pairs=f"{RESULTS}/pairs.parquet",
    output:
        manifest=f"{RESULTS}/halves.parquet",
    log:
        f"{LOGS}/halves.log",
    benchmark:
        f"{LOGS}/benchmarks/halves.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(2000),
        runtime=60,
    params:
        code=declare.code("halves"),
        env=declare.env("opencv-python-headless", "av", "numpy"),
    shell:
        "stage halves --pairs {input.pairs:q} --out {output.manifest:q} 2>&1 | tee -i {log:q}"
