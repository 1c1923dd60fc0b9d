# What people said about these samples, of the answers that the rating page keeps; and the scores that follow.
rule answers:
    input:
        samples=[
            f"{RESULTS}/samples/real.parquet",
            *expand(
                f"{RESULTS}/{{of}}samples/{{model}}.parquet", of=BASES, model=MODELS
            ),
        ],
    output:
        answers=f"{RESULTS}/answers.parquet",
        scores=f"{RESULTS}/scores/answers.parquet",
    log:
        f"{LOGS}/answers.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        config=declare.reads(stage_inputs.AnswersStage),
        code=declare.code("answers", "regdpo.evaluate.people"),
        ratings=lambda wildcards: found.ratings(),
    shell:
        "stage answers --samples {input.samples:q} --out {output.answers:q} --scores {output.scores:q}"
        " 2>&1 | tee -i {log:q}"
