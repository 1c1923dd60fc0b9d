# What became of the footage, as a page: made before its splits are counted, which may refuse it.
rule funnel_page:
    input:
        clips=rules.merge_clips.output.manifest,
        copies=rules.merge_clips.output.copies,
        split=rules.merge_clips.output.split,
    output:
        page=report(
            f"{RESULTS}/clips.html",
            caption="../workflow/report/clips.rst",
            category="Clips",
        ),
    log:
        f"{LOGS}/funnel.log",
    priority: 1
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        config=declare.reads(stage_inputs.FunnelStage),
        code=declare.code("funnel", "regdpo.data.registry:FILTERS"),
        env=declare.env("matplotlib", "jinja2", "pandas"),
        template=declare.template("funnel.html", "style.css"),
    shell:
        "stage funnel --clips {input.clips:q} --copies {input.copies:q} --split {input.split:q} --out {output.page:q}"
        " 2>&1 | tee -i {log:q}"
