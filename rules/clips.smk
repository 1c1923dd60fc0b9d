# Videos -> shots -> clips of one size, filtered. A rejected clip is a row with its reason.
rule cut_clips:
    input:
        ready,
    output:
        manifest=f"{RESULTS}/clips/{{shard}}.parquet",
    log:
        f"{LOGS}/clips/{{shard}}.log",
    benchmark:
        f"{LOGS}/benchmarks/clips/{{shard}}.tsv"
    conda:
        f"../envs/{'filters' if WEIGHED else 'regdpo'}.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(
            1000 + settings.clips.limits.memory_mb + (6000 if WEIGHED else 0)
        ),
        runtime=240,
        gpu=int("torch" in WEIGHED),
    params:
        config=declare.reads(stage_inputs.ClipsStage),
        code=declare.code(
            "clips",
            "regdpo.data.registry:FILTERS",
            *[it.module for it in JUDGES.values()],
        ),
        env=declare.env(
            *VIDEO_PACKAGES,
            "scenedetect-headless",
            *WEIGHED,
        ),
        weights=[found.weights(path) for path in found.judges],
        videos=lambda wildcards: found.videos(wildcards.shard),
        shards=settings.clips.shards,
        damage=lambda wildcards: damage.digest(
            f"{RESULTS}/clips/{wildcards.shard}.parquet"
        ),
    shell:
        "stage clips"
        " --shard {wildcards.shard}/{params.shards} --out {output.manifest:q} 2>&1 | tee -i {log:q}"


rule merge_clips:
    input:
        shards=expand(
            f"{RESULTS}/clips/{{shard}}.parquet", shard=range(settings.clips.shards)
        ),
    output:
        manifest=f"{RESULTS}/clips.parquet",
        copies=f"{RESULTS}/copies.parquet",
        # Once decided it stays when videos are added; to decide anew, delete it.
        split=update(f"{RESULTS}/split.json"),
    log:
        f"{LOGS}/clips/merge.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        config=declare.reads(stage_inputs.MergeStage),
        code=declare.code("merge_clips"),
        env=declare.env("numpy", "pyarrow"),
    shell:
        "stage merge_clips --out {output.manifest:q} --copies {output.copies:q} --split {output.split:q}"
        " {input.shards:q} 2>&1 | tee -i {log:q}"


# Before a GPU is asked for: whether there is footage for train, validation and test.
rule count_splits:
    input:
        clips=rules.merge_clips.output.manifest,
        copies=rules.merge_clips.output.copies,
        split=rules.merge_clips.output.split,
    output:
        manifest=f"{RESULTS}/splits.parquet",
        places=f"{RESULTS}/places.parquet",
    log:
        f"{LOGS}/splits.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        config=declare.reads(stage_inputs.SplitsStage),
        code=declare.code("splits"),
    shell:
        "stage splits --clips {input.clips:q} --copies {input.copies:q} --split {input.split:q}"
        " --places {output.places:q} --out {output.manifest:q} 2>&1 | tee -i {log:q}"


rule clips:
    input:
        rules.merge_clips.output.manifest,
        rules.count_splits.output,
        f"{RESULTS}/clips.html",
