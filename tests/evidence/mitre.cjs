// Read evidence with MITRE's tools: HDF as Heimdall and the SAF CLI do, .ckl and XCCDF through their mappers to HDF.
//
//   node mitre.cjs FILE...     prints for each file its controls as Heimdall shows them, and the checklist that is made of HDF
//
// NODE_PATH is the folder with the packages.
'use strict'
const fs = require('node:fs')
const path = require('node:path')
const { convertFile, contextualizeEvaluation } = require('inspecjs')
const { ChecklistResults, XCCDFResultsMapper, FromHdfToAsffMapper } = require('@mitre/hdf-converters')

const mappers = {
  '.hdf': text => text,
  '.ckl': text => JSON.stringify(new ChecklistResults(text).toHdf()),
  '.xccdf': text => JSON.stringify(new XCCDFResultsMapper(text).toHdf())
}

function read (file) {
  const text = mappers[path.extname(file)](fs.readFileSync(file, 'utf8'))
  // Throws unless the text keeps to the schema of exec-json.
  const evaluation = convertFile(text, false)['1_0_ExecJson']
  const controls = contextualizeEvaluation(evaluation).contains.flatMap(profile => profile.contains)
  const shown = controls.map(control => ({
    id: control.data.id,
    status: control.hdf.status,
    severity: control.hdf.severity,
    waived: control.hdf.waived,
    nist: control.hdf.rawNistTags,
    cci: control.data.tags.cci,
    title: control.data.title,
    descriptions: control.hdf.descriptions,
    texts: control.hdf.segments.map(segment => segment.message ?? segment.skip_message ?? segment.code_desc)
  }))
  const asff = path.extname(file) === '.hdf'
    ? new FromHdfToAsffMapper(evaluation, { input: 'dtr.hdf', awsAccountId: '123456789012', region: 'us-gov-west-1', target: 'dtr' })
      .toAsff().length
    : 0
  const checklist = path.extname(file) === '.hdf' ? new ChecklistResults(JSON.parse(text)).toCkl() : ''
  return { controls: shown, asff, checklist }
}

process.stdout.write(JSON.stringify(process.argv.slice(2).map(read)))
