-- How did it go, day by day, in the last 90 days, and on which days was there no audit to rely on?
-- The numbers are those of the day's last complete audit of the whole registry. A day without one is missed, and its numbers are
-- empty; today is missed only when it is over. No row: not one run in 90 days.
WITH
recent AS (
    SELECT
        registry, dt, run_id, status, tags, findings, complete AND scope = 'full' AS answers,
        row_number() OVER (PARTITION BY registry, dt, complete AND scope = 'full' ORDER BY run_id DESC) AS from_last
    FROM runs
    WHERE
        dt BETWEEN CAST(current_date - INTERVAL '90' DAY AS varchar) AND CAST(current_date AS varchar)
),
moves AS (
    SELECT
        registry, dt, count(*) AS runs, count_if(answers) AS complete_audits,
        sum(r.findings.opened) AS opened, sum(r.findings.resolved) AS resolved
    FROM recent AS r
    GROUP BY registry, dt
),
calendar AS (
    SELECT s.registry, CAST(c.day AS varchar) AS dt
    FROM (SELECT registry, min(CAST(dt AS date)) AS first_day FROM recent GROUP BY registry) AS s
    CROSS JOIN UNNEST(sequence(s.first_day, current_date, INTERVAL '1' DAY)) AS c (day)
)
SELECT
    c.registry, c.dt AS day, coalesce(a.status, 'NOT_REVIEWED') AS status,
    a.run_id IS NULL AND c.dt < CAST(current_date AS varchar) AS missed,
    coalesce(m.runs, 0) AS runs, coalesce(m.complete_audits, 0) AS complete_audits,
    a.tags.audited AS tags, a.tags.signed AS signed,
    a.tags.unsigned + a.tags.mismatched + a.tags.untrusted AS not_signed,
    a.findings.open AS open_findings, m.opened, m.resolved
FROM calendar AS c
LEFT JOIN recent AS a ON a.registry = c.registry AND a.dt = c.dt AND a.answers AND a.from_last = 1
LEFT JOIN moves AS m ON m.registry = c.registry AND m.dt = c.dt
ORDER BY c.registry, c.dt DESC
