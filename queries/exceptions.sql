-- Which findings are excepted, and which exceptions end soon?
-- As of the newest complete audit; days_left are counted from today, and an exception still holds on its last day. The soonest end
-- comes first. A row without a tag: no finding is excepted. No row: no complete audit of the whole registry in 35 days.
WITH
audits AS (
    SELECT
        registry, dt, run_id, findings.excepted AS excepted,
        row_number() OVER (PARTITION BY registry ORDER BY run_id DESC) AS from_last
    FROM runs
    WHERE complete AND scope = 'full' AND dt >= CAST(current_date - INTERVAL '35' DAY AS varchar)
)
SELECT
    a.registry, a.run_id, f.exception_id, f.exception_ends,
    date_diff('day', current_date, TRY_CAST(f.exception_ends AS date)) AS days_left,
    CASE
        WHEN TRY_CAST(f.exception_ends AS date) < current_date THEN 'ended'
        WHEN TRY_CAST(f.exception_ends AS date) <= current_date + INTERVAL '7' DAY THEN 'ends within a week'
        WHEN f.exception_ends IS NOT NULL THEN 'in force'
    END AS state,
    f.namespace, f.repository, f.tag, f.verdict, f.digest
FROM audits AS a
LEFT JOIN findings AS f
    ON f.registry = a.registry AND f.dt = a.dt AND f.run_id = a.run_id
    AND f.dt >= CAST(current_date - INTERVAL '35' DAY AS varchar)
    AND f.verdict IN ('UNSIGNED', 'MISMATCHED', 'UNTRUSTED') AND f.exception_id IS NOT NULL
-- An audit that has no rows any more says nothing, rather than that nothing is excepted.
WHERE a.from_last = 1 AND (f.tag IS NOT NULL OR a.excepted = 0)
ORDER BY f.exception_ends, a.registry, f.exception_id, f.namespace, f.repository, f.tag
