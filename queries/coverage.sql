-- How much of the registry did each run of the last 90 days see, and why not all of it?
-- Every run, the newest first: incomplete and partial ones too, which answer nothing for the whole registry.
WITH
recent AS (
    SELECT
        registry, run_id, scope, namespaces, complete, status, started_at, finished_at, repositories, tags, previous,
        incomplete_because
    FROM runs
    WHERE dt >= CAST(current_date - INTERVAL '90' DAY AS varchar)
)
SELECT
    r.registry, r.run_id, r.scope, r.complete, r.status,
    CASE
        WHEN r.repositories.listed > r.repositories.removed
            THEN round(100e0 * r.repositories.audited / (r.repositories.listed - r.repositories.removed), 1)
        WHEN r.complete THEN 100e0
        ELSE 0e0
    END AS coverage_percent,
    r.repositories.listed AS repositories, r.repositories.audited AS repositories_read,
    r.repositories.unreadable AS unreadable, r.repositories.removed AS removed_meanwhile,
    r.tags.audited AS tags, r.tags.unknown AS tags_unknown, r.previous.tags AS tags_before,
    date_diff('millisecond', from_iso8601_timestamp(r.started_at), from_iso8601_timestamp(r.finished_at)) / 1000e0 AS seconds,
    array_join(r.namespaces, ', ') AS only_namespaces,
    array_join(r.incomplete_because, ' | ') AS incomplete_because
FROM recent AS r
ORDER BY r.registry, r.run_id DESC
