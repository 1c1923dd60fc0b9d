# Held-out captions and first frames, rendered by base and every arm with the same seeds; and the real clips as yardstick.
rule real_samples:
    input:
        pairs=rules.pairs.input,
    output:
        manifest=f"{RESULTS}/samples/real.parquet",
    log:
        f"{LOGS}/samples/real.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        config=declare.reads(stage_inputs.SamplesStage),
        code=declare.code("samples", FAMILY),
    shell:
        "stage samples --pairs {input.pairs:q}"
        " --out {output.manifest:q} 2>&1 | tee -i {log:q}"


rule render_samples:
    input:
        model=model_files.of,
        pairs=rules.gt_pairs.output.manifest,
    output:
        manifest=f"{RESULTS}/{{of}}samples/{{model}}.parquet",
    log:
        f"{LOGS}/{{of}}samples/{{model}}.log",
    benchmark:
        f"{LOGS}/benchmarks/{{of}}samples/{{model}}.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(3000, 128000),
        runtime=720,
        gpu=1,
    params:
        config=declare.reads(stage_inputs.SamplesStage),
        code=declare.code("samples", FAMILY),
        env=declare.env(*MODEL_PACKAGES, "imageio-ffmpeg", "peft"),
        damage=lambda wildcards: damage.digest(
            f"{RESULTS}/{wildcards.of}samples/{wildcards.model}.parquet"
        ),
    shell:
        "stage samples --model {input.model:q}"
        " --pairs {input.pairs:q} --out {output.manifest:q} 2>&1 | tee -i {log:q}"


ruleorder: real_samples > render_samples
