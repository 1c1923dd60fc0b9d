# GT-Pair: winner = real clip, loser = generated; split so that no footage is shared.
rule gt_pairs:
    input:
        clips=rules.merge_clips.output.manifest,
        copies=rules.merge_clips.output.copies,
        split=rules.merge_clips.output.split,
        captions=rules.merge_captions.output.manifest,
        negatives=rules.merge_negatives.output.manifest,
    output:
        manifest=f"{RESULTS}/pairs.parquet",
    log:
        f"{LOGS}/pairs.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        config=declare.reads(stage_inputs.PairsStage),
        code=declare.code("pairs"),
    shell:
        "stage pairs --clips {input.clips:q} --copies {input.copies:q} --captions {input.captions:q}"
        " --negatives {input.negatives:q} --split {input.split:q} --out {output.manifest:q} 2>&1 | tee -i {log:q}"


rule pairs:
    input:
        rules.gt_pairs.output,
