# What is measured on the samples, one manifest per model and measure. regdpo/evaluate/measures.py declares the measures.
rule score:
    input:
        unpack(model_files.scored),
    output:
        scores=f"{RESULTS}/{{of}}scores/{{model}}/{{measure}}.parquet",
    log:
        f"{LOGS}/{{of}}scores/{{model}}/{{measure}}.log",
    benchmark:
        f"{LOGS}/benchmarks/{{of}}scores/{{model}}/{{measure}}.tsv"
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
        reads=lambda wildcards, input: " ".join(
            f"--{name} {shlex.quote(path)}" for name, path in input.items()
        ),
    shell:
        "{params.stage} scores --measure {wildcards.measure} {params.reads}"
        " --out {output.scores:q} 2>&1 | tee -i {log:q}"


rule merge_scores:
    input:
        [
            f"{RESULTS}/{of}scores/{model}/{measure}.parquet"
            for measure, declared in asked(settings.scores.on).items()
            if declared.reads != "answers"
            for of, model in ([("", "real")] if declared.reads == "samples" else [])
            + [(of, model) for of in BASES for model in MODELS]
        ],
        rules.answers.output.scores,
    output:
        scores=f"{RESULTS}/scores.parquet",
    log:
        f"{LOGS}/scores/merge.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        code=declare.code("merge"),
    shell:
        "stage merge --rows ScoreRow --out {output.scores:q} {input:q} 2>&1 | tee -i {log:q}"


rule evaluate:
    input:
        rules.merge_scores.output,
