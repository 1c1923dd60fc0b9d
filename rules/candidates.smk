# Several videos of each prompt, by the base (or by a training whose round it is), and what each is measured by.
# Of them pairs are chosen by score; see rules/pairs.smk.
rule render_candidates:
    input:
        unpack(model_files.of_candidates),
    output:
        manifest=f"{RESULTS}/{{of}}candidates/{{source}}/{{shard}}.parquet",
    log:
        f"{LOGS}/{{of}}candidates/{{source}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/benchmarks/{{of}}candidates/{{source}}/{{shard}}.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(3000, 128000),
        runtime=720,
        gpu=1,
    params:
        config=declare.reads(
            stage_inputs.CandidatesStage, lambda wildcards: (wildcards.source,)
        ),
        code=declare.code("candidates", FAMILY),
        env=declare.env(*MODEL_PACKAGES, "imageio-ffmpeg"),
        prompts=lambda wildcards: found.prompts(wildcards.source),
        shards=lambda wildcards: settings.pairs.ranked[wildcards.source].shards,
        damage=lambda wildcards: damage.digest(
            f"{RESULTS}/{wildcards.of}candidates/{wildcards.source}/{wildcards.shard}.parquet"
        ),
    shell:
        "stage candidates --source {wildcards.source} --model {input.model:q}"
        " --clips {input.clips:q} --captions {input.captions:q} --places {input.places:q}"
        " --shard {wildcards.shard}/{params.shards} --out {output.manifest:q} 2>&1 | tee -i {log:q}"


rule score_candidates:
    input:
        candidates=rules.render_candidates.output.manifest,
    output:
        scores=f"{RESULTS}/{{of}}candidates/{{source}}/{{shard}}/{{measure}}.parquet",
    log:
        f"{LOGS}/{{of}}candidates/{{source}}/{{shard}}/{{measure}}.log",
    benchmark:
        f"{LOGS}/benchmarks/{{of}}candidates/{{source}}/{{shard}}/{{measure}}.tsv"
    conda:
        lambda wildcards: f"../envs/{MEASURES[wildcards.measure].environment or 'regdpo'}.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: declare.memory(
            *MEASURES[wildcards.measure].memory
        )(wildcards, attempt),
        runtime=lambda wildcards: MEASURES[wildcards.measure].runtime,
        gpu=lambda wildcards: int(MEASURES[wildcards.measure].gpu),
    params:
        config=lambda wildcards: declare.measured(wildcards),
        code=lambda wildcards: declare.measure_code(wildcards.measure),
        env=lambda wildcards: declare.measure_env(wildcards.measure),
        available=lambda wildcards: declare.measure_there(wildcards.measure),
        weights=lambda wildcards: found.of_measure(MEASURES[wildcards.measure].on),
        stage=lambda wildcards: (
            'stage_in "$REGDPO_VISION"'
            if MEASURES[wildcards.measure].environment
            else "stage"
        ),
    shell:
        "{params.stage} scores --measure {wildcards.measure} --candidates {input.candidates:q}"
        " --out {output.scores:q} 2>&1 | tee -i {log:q}"
