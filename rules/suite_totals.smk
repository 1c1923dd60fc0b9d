# What the scores of a suite come to: means by dimension, and totals where none is missing.
rule total_suite:
    input:
        scores=rules.merge_suite.output.scores,
    output:
        totals=f"{RESULTS}/suites/{{suite}}.json",
    log:
        f"{LOGS}/suites/{{suite}}/totals.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        config=declare.reads(
            stage_inputs.SuiteTotalsStage, lambda wildcards: (wildcards.suite,)
        ),
        code=declare.code("suite_totals"),
    shell:
        "stage suite_totals --suite {wildcards.suite} --scores {input.scores:q}"
        " --out {output.totals:q} 2>&1 | tee -i {log:q}"


rule suites:
    input:
        expand(rules.total_suite.output.totals, suite=settings.scores.vbench.suites),
