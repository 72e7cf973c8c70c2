-- Which findings are open longest?
-- Open since the first of the complete audits that found the tag not signed without a break, up to the newest. 180 days are looked
-- at: what the oldest audit whose rows are looked at had found has or_longer, and may be older. The first 100; excepted ones too.
-- A row without a tag: the newest audit found nothing. No row: no complete audit in 180 days, so nobody knows.
WITH
audits AS (
    SELECT
        registry, dt, run_id, status, previous,
        row_number() OVER (PARTITION BY registry ORDER BY run_id) AS number,
        row_number() OVER (PARTITION BY registry ORDER BY run_id DESC) AS from_last
    FROM runs
    WHERE complete AND scope = 'full' AND dt >= CAST(current_date - INTERVAL '180' DAY AS varchar)
),
seen AS (
    SELECT
        a.registry, a.dt, a.number, a.from_last,
        f.namespace, f.repository, f.tag, f.verdict, f.author, f.pushed_at, f.exception_id,
        a.number = min(a.number) OVER (PARTITION BY a.registry) AND a.previous.run_id IS NOT NULL AS may_be_older
    FROM audits AS a
    INNER JOIN findings AS f ON f.registry = a.registry AND f.dt = a.dt AND f.run_id = a.run_id
    WHERE f.dt >= CAST(current_date - INTERVAL '180' DAY AS varchar)
),
failing AS (
    SELECT
        registry, dt, from_last, may_be_older, namespace, repository, tag, verdict, author, pushed_at, exception_id,
        -- The same for all audits in a row that found it so.
        number - row_number() OVER (PARTITION BY registry, namespace, repository, tag ORDER BY number) AS stretch
    FROM seen
    WHERE verdict IN ('UNSIGNED', 'MISMATCHED', 'UNTRUSTED')
),
dated AS (
    SELECT
        registry, from_last, namespace, repository, tag, verdict, author, pushed_at, exception_id,
        min(dt) OVER (PARTITION BY registry, namespace, repository, tag, stretch) AS open_since,
        bool_or(may_be_older) OVER (PARTITION BY registry, namespace, repository, tag, stretch) AS or_longer
    FROM failing
)
SELECT
    a.registry, a.run_id, d.namespace, d.repository, d.tag, d.open_since,
    date_diff('day', CAST(d.open_since AS date), current_date) AS days, d.or_longer,
    d.verdict, d.author, d.pushed_at, d.exception_id
FROM audits AS a
LEFT JOIN dated AS d ON d.registry = a.registry AND d.from_last = 1
-- An audit that found something and has no rows any more says nothing, rather than that there is nothing.
WHERE a.from_last = 1 AND (d.tag IS NOT NULL OR a.status = 'NOT_A_FINDING')
ORDER BY d.open_since, a.registry, d.namespace, d.repository, d.tag
LIMIT 100
