# One caption per clip.
rule caption_clips:
    input:
        clips=rules.merge_clips.output.manifest,
        splits=ancient(rules.count_splits.output.manifest),
    output:
        manifest=f"{RESULTS}/captions/{{shard}}.parquet",
    log:
        f"{LOGS}/captions/{{shard}}.log",
    benchmark:
        f"{LOGS}/benchmarks/captions/{{shard}}.tsv"
    localrule: not CAPTIONER.model
    conda:
        f"../envs/{'captioning' if CAPTIONER.environment else 'regdpo'}.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(64000 if CAPTIONER.gpu else 2000),
        runtime=240,
        gpu=int(CAPTIONER.gpu),
    params:
        config=declare.reads(stage_inputs.CaptionsStage),
        code=declare.code("captions", CAPTIONER.module),
        env=declare.env(*CAPTIONER.packages) if CAPTIONER.packages else "",
        sidecars=lambda wildcards: found.sidecars(wildcards.shard),
        shards=settings.clips.shards,
        weights=lambda wildcards: found.weights(settings.captions.model),
    shell:
        'stage_in "$REGDPO_CAPTIONER" captions --clips {input.clips:q}'
        " --shard {wildcards.shard}/{params.shards} --out {output.manifest:q} 2>&1 | tee -i {log:q}"


rule merge_captions:
    input:
        shards=expand(
            f"{RESULTS}/captions/{{shard}}.parquet", shard=range(settings.clips.shards)
        ),
    output:
        manifest=f"{RESULTS}/captions.parquet",
    log:
        f"{LOGS}/captions/merge.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        code=declare.code("merge"),
    shell:
        "stage merge --rows CaptionRow --out {output.manifest:q} {input.shards:q} 2>&1 | tee -i {log:q}"


rule captions:
    input:
        rules.merge_captions.output,
