# GT-Pair: winner = real clip, loser = generated; and pairs that others made. Split so that no footage is shared.
rule gt_pairs:
    input:
        clips=rules.merge_clips.output.manifest if FOOTAGE else [],
        copies=rules.merge_clips.output.copies if FOOTAGE else [],
        split=rules.merge_clips.output.split if FOOTAGE else [],
        captions=rules.merge_captions.output.manifest if FOOTAGE else [],
        negatives=rules.merge_negatives.output.manifest if GT else [],
        imports=rules.imports.input.manifests,
        candidates=lambda wildcards: model_files.ranked(wildcards, "candidates"),
        scores=lambda wildcards: model_files.ranked(wildcards, "scores"),
        # What the footage looks like, to be found in pairs that others made.
        shots=rules.merge_clips.input.shards if FOOTAGE and IMPORTED else [],
    output:
        manifest=f"{RESULTS}/{{of}}pairs.parquet",
    log:
        f"{LOGS}/{{of}}pairs.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        config=declare.reads(stage_inputs.PairsStage),
        code=declare.code("pairs"),
        env=declare.env("numpy"),
    shell:
        "stage pairs --clips {input.clips:q} --copies {input.copies:q} --captions {input.captions:q}"
        " --negatives {input.negatives:q} --split {input.split:q} --imports {input.imports:q} --shots {input.shots:q}"
        " --candidates {input.candidates:q} --scores {input.scores:q} --out {output.manifest:q} 2>&1 | tee -i {log:q}"


rule pairs:
    input:
        expand(rules.gt_pairs.output.manifest, of=BASES),
