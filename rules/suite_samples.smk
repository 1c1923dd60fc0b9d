# Videos of VBench's own prompts, rendered by base and every arm with the same seeds, a shard of the prompts each.
rule render_suite:
    input:
        model=model_files.of,
    output:
        manifest=f"{RESULTS}/{{of}}suites/{{suite}}/{{model}}/videos/{{shard}}.parquet",
    log:
        f"{LOGS}/{{of}}suites/{{suite}}/{{model}}/videos/{{shard}}.log",
    benchmark:
        f"{LOGS}/benchmarks/{{of}}suites/{{suite}}/{{model}}/videos/{{shard}}.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(3000, 128000),
        runtime=1440,
        gpu=1,
    params:
        config=declare.reads(
            stage_inputs.SuiteSamplesStage, lambda wildcards: (wildcards.suite,)
        ),
        code=declare.code("suite_samples", FAMILY),
        env=declare.env(*MODEL_PACKAGES, "imageio-ffmpeg", "peft"),
        available=lambda wildcards: declare.suite_there(wildcards.suite),
        prompts=lambda wildcards: found.suite(wildcards.suite),
        shards=settings.scores.vbench.shards,
        damage=lambda wildcards: damage.digest(
            f"{RESULTS}/{wildcards.of}suites/{wildcards.suite}/{wildcards.model}/videos/{wildcards.shard}.parquet"
        ),
    shell:
        "stage suite_samples --suite {wildcards.suite} --model {input.model:q}"
        " --shard {wildcards.shard}/{params.shards} --out {output.manifest:q} 2>&1 | tee -i {log:q}"
