-- What was found of one tag on one day, and where does it lie?
-- A row for each run of the day, with what it saw of the tag; the keys are those of the bucket, rows_prefix that of the files with
-- the rows; manifest_key leads to the list of the run's files with their sums. No row: no run on that day.
-- Parameter 1: the namespace, such as 'payments'
-- Parameter 2: the repository, such as 'ledger'
-- Parameter 3: the tag, such as '2.3'
-- Parameter 4: the day, such as '2026-11-22'
WITH
one_tag AS (
    SELECT
        registry, dt, run_id, tag, digest, verdict, artifact, reason, signed_domain, in_notary, hash_mismatch, author,
        pushed_at, audited_at, exception_id, exception_ends
    FROM findings
    WHERE namespace = ? AND repository = ? AND tag = ?
),
kept AS (
    SELECT registry, dt, run_id
    FROM findings
    GROUP BY registry, dt, run_id
)
SELECT
    r.registry, r.run_id, r.scope, r.complete, r.status AS run_status,
    CASE
        WHEN t.artifact THEN 'a signature artifact, not an image'
        WHEN t.tag IS NOT NULL THEN t.verdict
        WHEN k.run_id IS NULL AND r.tags.audited + r.tags.artifacts > 0 THEN 'the rows of this run are no longer kept'
        WHEN r.complete AND r.scope = 'full' THEN 'not in the registry'
        ELSE 'not seen: this run did not read the whole registry'
    END AS answer,
    t.reason, t.digest, t.signed_domain, t.in_notary, t.hash_mismatch, t.author, t.pushed_at, t.audited_at,
    t.exception_id, t.exception_ends,
    concat('runs/registry=', r.registry, '/dt=', r.dt, '/', r.run_id, '.json') AS record_key,
    concat('findings/registry=', r.registry, '/dt=', r.dt, '/', r.run_id, '-') AS rows_prefix,
    element_at(r.evidence, 'manifest') AS manifest_key
FROM runs AS r
LEFT JOIN one_tag AS t ON t.registry = r.registry AND t.dt = r.dt AND t.run_id = r.run_id
LEFT JOIN kept AS k ON k.registry = r.registry AND k.dt = r.dt AND k.run_id = r.run_id
WHERE r.dt = ?
ORDER BY r.registry, r.run_id
