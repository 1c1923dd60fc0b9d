# The page: arms side by side, videos, curves, the pairs looked at, provenance.
rule report_page:
    input:
        clips=rules.merge_clips.output.manifest if FOOTAGE else [],
        captions=rules.merge_captions.output.manifest if FOOTAGE else [],
        negatives=rules.negatives.input if GT else [],
        imports=rules.imports.input.manifests,
        pairs=f"{RESULTS}/pairs.parquet",
        halves=rules.compare_halves.output.manifest,
        samples=rules.rate.input.samples,
        scores=rules.merge_scores.output.scores,
        answers=rules.answers.output.answers,
        suites=rules.suites.input,
        vae=rules.vae.input if settings.vae.report else [],
        models=[
            *expand(f"{RESULTS}/{{of}}base/model.json", of=BASES),
            *rules.train.input,
        ],
    output:
        page=report(
            f"{RESULTS}/report/index.html",
            caption="../workflow/report/page.rst",
            category="Report",
        ),
        content=report(
            f"{RESULTS}/report/report.json",
            caption="../workflow/report/content.rst",
            category="Report",
        ),
    log:
        f"{LOGS}/report.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        config=declare.reads(stage_inputs.ReportStage),
        code=declare.code("report", "regdpo.evaluate.measures:MEASURES"),
        env=declare.env("matplotlib", "jinja2", "scipy", "pandas"),
        template=declare.template(
            "template.html",
            "people.html",
            "suites.html",
            "vae.html",
            "style.css",
            "page.js",
        ),
    shell:
        "stage report"
        " --clips {input.clips:q} --captions {input.captions:q} --negatives {input.negatives:q} --pairs {input.pairs:q}"
        " --imports {input.imports:q}"
        " --halves {input.halves:q} --samples {input.samples:q} --scores {input.scores:q} --answers {input.answers:q}"
        " --suites {input.suites:q} --vae {input.vae:q} --models {input.models:q} --out {output.page:q} --content {output.content:q} 2>&1 | tee -i {log:q}"


rule report:
    input:
        rules.report_page.output,
