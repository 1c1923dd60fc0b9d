# What VBench says of a shard of a model's videos; each dimension of it is kept as soon as it is there.
rule score_suite:
    input:
        samples=rules.render_suite.output.manifest,
    output:
        scores=f"{RESULTS}/{{of}}suites/{{suite}}/{{model}}/scores/{{shard}}.parquet",
    log:
        f"{LOGS}/{{of}}suites/{{suite}}/{{model}}/scores/{{shard}}.log",
    benchmark:
        f"{LOGS}/benchmarks/{{of}}suites/{{suite}}/{{model}}/scores/{{shard}}.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(3000, 32000),
        runtime=1440,
        gpu=1,
    params:
        config=declare.reads(
            stage_inputs.SuiteStage, lambda wildcards: (wildcards.suite,)
        ),
        code=declare.code("suite_scores"),
        env=declare.env("vbench", "decord", "numpy", lock="vbench"),
        available=lambda wildcards: declare.suite_there(wildcards.suite),
        prompts=lambda wildcards: found.suite(wildcards.suite),
        shards=settings.scores.vbench.shards,
    shell:
        "stage suite_scores --suite {wildcards.suite} --model {wildcards.of}{wildcards.model} --samples {input.samples:q}"
        " --shard {wildcards.shard}/{params.shards} --out {output.scores:q} 2>&1 | tee -i {log:q}"


rule merge_suite:
    input:
        scores=[
            f"{RESULTS}/{of}suites/{{suite}}/{model}/scores/{shard}.parquet"
            for of in BASES
            for model in MODELS
            for shard in range(settings.scores.vbench.shards)
        ],
    output:
        scores=f"{RESULTS}/suites/{{suite}}.parquet",
    log:
        f"{LOGS}/suites/{{suite}}/merge.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        code=declare.code("merge"),
    shell:
        "stage merge --rows SuiteScoreRow --out {output.scores:q} {input.scores:q} 2>&1 | tee -i {log:q}"
