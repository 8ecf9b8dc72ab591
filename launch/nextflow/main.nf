#!/usr/bin/env nextflow
// Predicts in shares, each in a work folder of its own, then merges them.
// usage: nextflow run launch/nextflow -profile docker --images DIR
//   --panel panel.csv --outdir OUT --shares 16
//   --args '--config.predict.views=1 ...'  what else `predict` is called with
// Profiles: standard (a `dicexmbd` on the PATH), docker, apptainer, slurm.
// A share that is killed is tried again three times. Images that fail stop
// nothing: OUT/results/failures.csv tells them.
nextflow.enable.dsl = 2

include { DICEXMBD_PREDICT } from './modules/local/dicexmbd/predict/main'
include { DICEXMBD_MERGE   } from './modules/local/dicexmbd/merge/main'

workflow {
    if (!params.images || !params.outdir) {
        error "found no --images or no --outdir, expected both"
    }
    def images = file(params.images, checkIfExists: true)
    def panel = params.panel ? file(params.panel, checkIfExists: true) : []
    def count = params.shares as int

    ch_shares = Channel
        .of(0..<count)
        .map { index -> [[id: "share_${index}", share: "${index}/${count}"], images, panel] }
    DICEXMBD_PREDICT(ch_shares)

    ch_merge = DICEXMBD_PREDICT.out.share
        .map { meta, share -> share }
        .collect()
        .map { shares -> [[id: 'results'], images, shares] }
    DICEXMBD_MERGE(ch_merge)

    DICEXMBD_PREDICT.out.versions
        .mix(DICEXMBD_MERGE.out.versions)
        .unique { it.text }
        .collectFile(name: 'versions.yml', storeDir: params.outdir)
}
