-- How many days do teams take to sign what was found unsigned, by namespace?
-- Of the last 180 days: from the first complete audit that found a tag not signed to the first one that found it signed. What was
-- found by the oldest audit whose rows are looked at may be older: it counts in signed, but not in the days. Removed tags were
-- never signed, open ones are not yet. No row: nothing was found, or no complete audit: see the query trend.
WITH
audits AS (
    SELECT
        registry, dt, run_id, previous,
        row_number() OVER (PARTITION BY registry ORDER BY run_id) AS number,
        row_number() OVER (PARTITION BY registry ORDER BY run_id DESC) AS from_last
    FROM runs
    WHERE complete AND scope = 'full' AND dt >= CAST(current_date - INTERVAL '180' DAY AS varchar)
),
seen AS (
    SELECT
        a.registry, a.dt, a.number, a.from_last, f.namespace, f.repository, f.tag,
        f.verdict = 'SIGNED' AS is_signed,
        coalesce(f.verdict IN ('UNSIGNED', 'MISMATCHED', 'UNTRUSTED'), false) AS failing,
        a.number = min(a.number) OVER (PARTITION BY a.registry) AND a.previous.run_id IS NOT NULL AS may_be_older
    FROM audits AS a
    INNER JOIN findings AS f ON f.registry = a.registry AND f.dt = a.dt AND f.run_id = a.run_id
    WHERE f.dt >= CAST(current_date - INTERVAL '180' DAY AS varchar)
),
followed AS (
    SELECT
        registry, namespace, repository, tag, dt, number, from_last, failing, may_be_older,
        -- The same for all audits in a row that found it so.
        number - row_number() OVER (PARTITION BY registry, namespace, repository, tag, failing ORDER BY number) AS stretch,
        lead(number) OVER (PARTITION BY registry, namespace, repository, tag ORDER BY number) AS next_number,
        lead(is_signed) OVER (PARTITION BY registry, namespace, repository, tag ORDER BY number) AS next_is_signed,
        lead(dt) OVER (PARTITION BY registry, namespace, repository, tag ORDER BY number) AS next_dt
    FROM seen
),
stretches AS (
    SELECT
        registry, namespace, min(dt) AS opened_on, bool_or(may_be_older) AS may_be_older, bool_or(from_last = 1) AS is_open,
        max(CASE WHEN next_number = number + 1 AND next_is_signed THEN next_dt END) AS signed_on
    FROM followed
    WHERE failing
    GROUP BY registry, namespace, repository, tag, stretch
),
timed AS (
    SELECT
        registry, namespace, is_open, signed_on,
        CASE WHEN NOT may_be_older THEN date_diff('day', CAST(opened_on AS date), CAST(signed_on AS date)) END AS days
    FROM stretches
)
SELECT
    registry, namespace,
    count(signed_on) AS signed,
    count(days) AS timed,
    round(avg(days), 1) AS average_days,
    element_at(
        array_agg(days ORDER BY days) FILTER (WHERE days IS NOT NULL), CAST(ceil(count(days) / 2e0) AS bigint)
    ) AS median_days,
    max(days) AS longest_days,
    count_if(signed_on IS NULL AND NOT is_open) AS removed,
    count_if(is_open) AS still_open
FROM timed
GROUP BY registry, namespace
ORDER BY registry, average_days DESC NULLS LAST, namespace
