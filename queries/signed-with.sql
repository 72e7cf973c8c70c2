-- Which image tags are signed with Content Trust, with Cosign only, or with neither, by namespace?
-- As of the newest complete audit of the whole registry. Of Cosign the registry says only that a signature is there; it is not verified.
-- The rule's check asks for Content Trust, so the tags of cosign_only and of neither are findings. A row without a namespace: the
-- registry holds no image. No row: no complete audit in 35 days.
WITH
audits AS (
    SELECT
        registry, dt, run_id, tags.audited AS tags_expected,
        row_number() OVER (PARTITION BY registry ORDER BY run_id DESC) AS from_last
    FROM runs
    WHERE complete AND scope = 'full' AND dt >= CAST(current_date - INTERVAL '35' DAY AS varchar)
)
SELECT
    a.registry, a.run_id, f.namespace,
    count(f.tag) AS tags,
    count_if(f.verdict = 'SIGNED') AS content_trust,
    count_if(f.verdict IN ('UNSIGNED', 'MISMATCHED', 'UNTRUSTED') AND coalesce(f.cosign_signed, false)) AS cosign_only,
    count_if(f.verdict IN ('UNSIGNED', 'MISMATCHED', 'UNTRUSTED') AND NOT coalesce(f.cosign_signed, false)) AS neither
FROM audits AS a
LEFT JOIN findings AS f
    ON f.registry = a.registry AND f.dt = a.dt AND f.run_id = a.run_id
    AND f.dt >= CAST(current_date - INTERVAL '35' DAY AS varchar)
    AND NOT f.artifact
WHERE a.from_last = 1 AND (f.tag IS NOT NULL OR a.tags_expected = 0)
GROUP BY a.registry, a.run_id, f.namespace
ORDER BY a.registry, cosign_only DESC, neither DESC, f.namespace
