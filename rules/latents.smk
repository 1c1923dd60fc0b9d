# Winner, loser, text and condition, encoded once: of the pairs (gt), or of the clips a base made here learns from.
rule encode_latents:
    input:
        unpack(model_files.encoded),
    output:
        manifest=f"{RESULTS}/{{of}}latents/{{pairs}}/{{shard}}.parquet",
    log:
        f"{LOGS}/{{of}}latents/{{pairs}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/benchmarks/{{of}}latents/{{pairs}}/{{shard}}.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(3000, 64000),
        runtime=720,
        gpu=1,
    params:
        config=declare.reads(stage_inputs.LatentsStage),
        code=declare.code("latents", FAMILY),
        env=declare.env(*MODEL_PACKAGES),
        shards=settings.latents.shards,
        damage=lambda wildcards: damage.digest(
            f"{RESULTS}/{wildcards.of}latents/{wildcards.pairs}/{wildcards.shard}.parquet"
        ),
    shell:
        "stage latents --model {input.model:q}"
        " --pairs {input.pairs:q} --shard {wildcards.shard}/{params.shards} --out {output.manifest:q}"
        " 2>&1 | tee -i {log:q}"


rule merge_latents:
    input:
        shards=expand(
            f"{RESULTS}/{{{{of}}}}latents/{{{{pairs}}}}/{{shard}}.parquet",
            shard=range(settings.latents.shards),
        ),
    output:
        manifest=f"{RESULTS}/{{of}}latents/{{pairs}}.parquet",
    log:
        f"{LOGS}/{{of}}latents/{{pairs}}.merge.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        code=declare.code("merge"),
    shell:
        "stage merge --rows LatentRow --out {output.manifest:q} {input.shards:q} 2>&1 | tee -i {log:q}"
