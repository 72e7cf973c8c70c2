// Read checklists as STIG Manager would import them, with its own parsers.
//
//   node stig_manager.cjs FILE...     prints what the parsers give, a list of one for each file
//
// NODE_PATH is the folder with the package. The options are those of a collection that takes everything, and takes it as it is.
'use strict'
const fs = require('node:fs')
const path = require('node:path')
const { reviewsFromCkl, reviewsFromCklb, reviewsFromXccdf } = require('@nuwcdivnpt/stig-manager-client-modules')

const parsers = { '.ckl': reviewsFromCkl, '.cklb': reviewsFromCklb, '.xccdf': reviewsFromXccdf }
const options = {
  fieldSettings: { detail: { enabled: 'always', required: 'always' }, comment: { enabled: 'always', required: 'always' } },
  allowAccept: false,
  importOptions: {
    autoStatus: 'saved',
    unreviewed: 'always',
    unreviewedCommented: 'notchecked',
    emptyDetail: 'ignore',
    emptyComment: 'ignore',
    allowCustom: true
  },
  scapBenchmarkMap: new Map()
}

const read = file =>
  parsers[path.extname(file)]({ ...options, data: fs.readFileSync(file, 'utf8'), sourceRef: path.basename(file) })

process.stdout.write(JSON.stringify(process.argv.slice(2).map(read)))
