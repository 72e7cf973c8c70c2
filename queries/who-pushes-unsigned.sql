-- Who pushes images without signing them?
-- Of every author, the images (a digest under a tag) that the complete audits of the last 30 days saw; how many of them at least
-- one audit found not signed; how many still are not, as of the newest. The author is what the registry says: often an account's
-- id, with its name where the registry tells it. No row: nothing was found, or no complete audit: see the query trend.
WITH
audits AS (
    SELECT registry, dt, run_id, row_number() OVER (PARTITION BY registry ORDER BY run_id DESC) AS from_last
    FROM runs
    WHERE complete AND scope = 'full' AND dt >= CAST(current_date - INTERVAL '30' DAY AS varchar)
),
images AS (
    SELECT
        a.registry, f.author, f.namespace, f.repository, f.tag, f.digest, max(f.pushed_at) AS pushed_at,
        max(f.author_name) AS author_name,
        bool_or(f.verdict IN ('UNSIGNED', 'MISMATCHED', 'UNTRUSTED')) AS was_failing,
        bool_or(f.verdict IN ('UNSIGNED', 'MISMATCHED', 'UNTRUSTED') AND a.from_last = 1) AS is_failing
    FROM audits AS a
    INNER JOIN findings AS f ON f.registry = a.registry AND f.dt = a.dt AND f.run_id = a.run_id
    WHERE f.dt >= CAST(current_date - INTERVAL '30' DAY AS varchar) AND NOT f.artifact
    GROUP BY a.registry, f.author, f.namespace, f.repository, f.tag, f.digest
)
SELECT
    registry, author, max(author_name) AS author_name,
    count_if(is_failing) AS not_signed_now,
    count_if(was_failing) AS not_signed,
    count(*) AS images,
    round(100e0 * count_if(was_failing) / count(*), 1) AS percent,
    max(CASE WHEN was_failing THEN pushed_at END) AS last_push,
    array_join(array_agg(DISTINCT namespace ORDER BY namespace) FILTER (WHERE was_failing), ', ') AS namespaces
FROM images
GROUP BY registry, author
HAVING count_if(was_failing) > 0
ORDER BY not_signed_now DESC, not_signed DESC, registry, author
