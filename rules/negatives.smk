# Losers: what the base model, or each generator that is named, makes of each clip's caption and first frame.
rule render_negatives:
    input:
        model=model_files.of_generator,
        clips=rules.merge_clips.output.manifest,
        captions=rules.merge_captions.output.manifest,
        places=rules.count_splits.output.places,
    output:
        manifest=f"{RESULTS}/{{of}}negatives/{{generator}}/{{shard}}.parquet",
    log:
        f"{LOGS}/{{of}}negatives/{{generator}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/benchmarks/{{of}}negatives/{{generator}}/{{shard}}.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(3000, 128000),
        runtime=720,
        gpu=1,
    params:
        config=declare.reads(
            stage_inputs.NegativesStage, lambda wildcards: (wildcards.generator,)
        ),
        code=declare.negatives_code,
        env=declare.env(*MODEL_PACKAGES, "imageio-ffmpeg"),
        shards=settings.negatives.shards,
        damage=lambda wildcards: damage.digest(
            f"{RESULTS}/{wildcards.of}negatives/{wildcards.generator}/{wildcards.shard}.parquet"
        ),
    shell:
        "stage negatives --model {input.model:q} --generator {wildcards.generator}"
        " --clips {input.clips:q} --captions {input.captions:q} --places {input.places:q}"
        " --shard {wildcards.shard}/{params.shards} --out {output.manifest:q} 2>&1 | tee -i {log:q}"


rule merge_negatives:
    input:
        shards=model_files.negatives,
    output:
        manifest=f"{RESULTS}/{{of}}negatives.parquet",
    log:
        f"{LOGS}/{{of}}negatives/merge.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        code=declare.code("merge"),
    shell:
        "stage merge --rows NegativeRow --out {output.manifest:q} {input.shards:q} 2>&1 | tee -i {log:q}"


rule negatives:
    input:
        expand(rules.merge_negatives.output.manifest, of=BASES),
