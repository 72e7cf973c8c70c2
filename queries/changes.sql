-- What is new, what changed and what is resolved between two days?
-- Each day stands for its last complete audit of the whole registry; what came and went in between is not seen.
-- A row without a tag: nothing changed. One without newer_run: only one of the days has such an audit, with rows that are still
-- kept. No row: neither has.
-- Parameter 1: one day, such as '2026-11-01'
-- Parameter 2: the other day, such as '2026-11-22'
WITH
audits AS (
    SELECT
        registry, dt, run_id, tags.audited + tags.artifacts AS rows_expected,
        row_number() OVER (PARTITION BY registry, dt ORDER BY run_id DESC) AS from_last
    FROM runs
    WHERE complete AND scope = 'full'
),
seen AS (
    SELECT
        a.registry, a.dt, a.run_id, f.namespace, f.repository, f.tag, f.digest, f.verdict, f.reason, f.author,
        coalesce(f.verdict IN ('UNSIGNED', 'MISMATCHED', 'UNTRUSTED'), false) AS failing
    FROM audits AS a
    LEFT JOIN findings AS f ON f.registry = a.registry AND f.dt = a.dt AND f.run_id = a.run_id
    WHERE a.from_last = 1 AND a.dt IN (?, ?) AND (f.tag IS NOT NULL OR a.rows_expected = 0)
),
days AS (
    SELECT
        registry, min(dt) AS older, max(dt) AS newer, min(run_id) AS older_run,
        CASE WHEN min(dt) < max(dt) THEN max(run_id) END AS newer_run
    FROM seen
    GROUP BY registry
),
compared AS (
    SELECT
        s.registry, s.namespace, s.repository, s.tag,
        bool_or(s.failing AND s.dt = d.older) AS was_failing,
        bool_or(s.failing AND s.dt = d.newer) AS is_failing,
        bool_or(s.dt = d.newer) AS is_there,
        max(CASE WHEN s.dt = d.older THEN s.verdict END) AS verdict_before,
        max(CASE WHEN s.dt = d.newer THEN s.verdict END) AS verdict_after,
        max(CASE WHEN s.dt = d.newer THEN s.digest END) AS digest,
        max(CASE WHEN s.dt = d.newer THEN s.reason END) AS reason,
        max(CASE WHEN s.dt = d.newer THEN s.author END) AS author
    FROM seen AS s
    INNER JOIN days AS d ON d.registry = s.registry
    WHERE s.tag IS NOT NULL
    GROUP BY s.registry, s.namespace, s.repository, s.tag
),
changes AS (
    SELECT
        registry, namespace, repository, tag, verdict_before, verdict_after, digest, reason, author,
        CASE
            WHEN is_failing AND NOT was_failing THEN 'opened'
            WHEN is_failing THEN 'changed'
            WHEN verdict_after = 'SIGNED' THEN 'resolved: signed'
            WHEN is_there THEN 'resolved: a signature artifact, not an image'
            ELSE 'resolved: removed'
        END AS change
    FROM compared
    WHERE is_failing <> was_failing OR (is_failing AND verdict_before <> verdict_after)
)
SELECT
    d.registry, d.older_run, d.newer_run, c.change,
    c.namespace, c.repository, c.tag, c.verdict_before, c.verdict_after, c.digest, c.reason, c.author
FROM days AS d
LEFT JOIN changes AS c ON c.registry = d.registry
ORDER BY d.registry, c.change, c.namespace, c.repository, c.tag
