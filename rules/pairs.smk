# GT-Pair: winner = real clip, loser = generated; and pairs that others made. Split so that no footage is shared.
rule gt_pairs:
    input:
        clips=rules.merge_clips.output.manifest if GT else [],
        copies=rules.merge_clips.output.copies if GT else [],
        split=rules.merge_clips.output.split if GT else [],
        captions=rules.merge_captions.output.manifest if GT else [],
        negatives=rules.merge_negatives.output.manifest if GT else [],
        imports=rules.imports.input.manifests,
        # What the footage looks like, to be found in pairs that others made.
        shots=rules.merge_clips.input.shots if GT and IMPORTED else [],
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
        " --negatives {input.negatives:q} --split {input.split:q} --imports {input.imports:q} --shots {input.shots:q} --out {output.manifest:q} 2>&1 | tee -i {log:q}"


rule pairs:
    input:
        expand(rules.gt_pairs.output.manifest, of=BASES),
