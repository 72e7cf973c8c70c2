-- Which image tags are not signed, as of the newest complete audit?
-- A row without a tag: that audit found nothing. No row: no complete audit of the whole registry in 35 days, so nobody knows.
WITH
audits AS (
    SELECT registry, dt, run_id, status, row_number() OVER (PARTITION BY registry ORDER BY run_id DESC) AS from_last
    FROM runs
    WHERE complete AND scope = 'full' AND dt >= CAST(current_date - INTERVAL '35' DAY AS varchar)
)
SELECT
    a.registry, a.run_id, a.status,
    f.namespace, f.repository, f.tag, f.verdict, f.reason, f.digest, f.author, f.author_name, f.pushed_at,
    f.exception_id, f.exception_ends
FROM audits AS a
LEFT JOIN findings AS f
    ON f.registry = a.registry AND f.dt = a.dt AND f.run_id = a.run_id
    AND f.dt >= CAST(current_date - INTERVAL '35' DAY AS varchar)
    AND f.verdict IN ('UNSIGNED', 'MISMATCHED', 'UNTRUSTED')
-- An audit that found something and has no rows any more says nothing, rather than that there is nothing.
WHERE a.from_last = 1 AND (f.tag IS NOT NULL OR a.status = 'NOT_A_FINDING')
ORDER BY a.registry, f.namespace, f.repository, f.tag
