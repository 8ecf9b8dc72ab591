// One share of a run, in a folder of its own.
process DICEXMBD_PREDICT {
    tag "$meta.id"
    label 'process_high'

    input:
    // meta.share: "3/16", or "0/1" where `images` are this task's alone.
    tuple val(meta), path(images, stageAs: 'images/*'), path(panel)

    output:
    tuple val(meta), path("${prefix}"), emit: share
    path "versions.yml"               , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def panel_arg = panel ? "--panel='${panel}'" : ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    dicexmbd predict \\
        --images=images \\
        ${panel_arg} \\
        --output='${prefix}' \\
        --shard=${meta.share} \\
        --allow_failures \\
        --num_workers=${task.cpus} \\
        ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        dicexmbd: \$(dicexmbd --version | sed 's/^dicexmbd //')
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p '${prefix}/shards'

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        dicexmbd: \$(dicexmbd --version | sed 's/^dicexmbd //')
    END_VERSIONS
    """
}
