# Whether the workflow makes pairs of the footage.
GT = "gt" in settings.pairs.sources
# Whether it does, or makes pairs of videos of its captions.
FOOTAGE = settings.paired_footage
# Pairs that others made: both halves are brought to what clips are. A pair that cannot be used is a row with its reason.
IMPORTED = [
    name
    for name, it in settings.pairs.sources.items()
    if PAIR_SOURCES[it.kind].imported
]


rule import_pairs:
    output:
        manifest=f"{RESULTS}/imports/{{source}}/{{shard}}.parquet",
    log:
        f"{LOGS}/imports/{{source}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/benchmarks/imports/{{source}}/{{shard}}.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(1000 + settings.clips.limits.memory_mb),
        runtime=240,
    params:
        config=declare.reads(stage_inputs.ImportsStage),
        code=declare.code("imports"),
        env=declare.env(*VIDEO_PACKAGES),
        files=lambda wildcards: found.imports(wildcards.source),
        shards=settings.clips.shards,
        damage=lambda wildcards: damage.digest(
            f"{RESULTS}/imports/{wildcards.source}/{wildcards.shard}.parquet"
        ),
    shell:
        "stage imports --source {wildcards.source:q}"
        " --shard {wildcards.shard}/{params.shards} --out {output.manifest:q} 2>&1 | tee -i {log:q}"


rule imports:
    input:
        manifests=expand(
            rules.import_pairs.output.manifest,
            source=IMPORTED,
            shard=range(settings.clips.shards),
        ),
