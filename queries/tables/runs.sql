-- The record of every run. The stack makes this table itself; by hand, put your names for BUCKET and REGISTRY.
-- Only a run that is complete and of scope 'full' answers for the whole registry.
CREATE EXTERNAL TABLE runs (
    rule_id string,
    run_id string,
    scope string COMMENT 'full, or partial: only the namespaces named',
    namespaces array<string>,
    status string COMMENT 'NOT_A_FINDING, OPEN or NOT_REVIEWED',
    complete boolean,
    empty boolean,
    incomplete_because array<string>,
    warnings array<string>,
    domains array<string>,
    started_at string COMMENT 'ISO 8601',
    finished_at string COMMENT 'ISO 8601',
    repositories struct<listed:bigint, audited:bigint, unreadable:bigint, removed:bigint>,
    tags struct<
        audited:bigint, signed:bigint, unsigned:bigint, mismatched:bigint, untrusted:bigint, unknown:bigint,
        artifacts:bigint, cosign_only:bigint, neither:bigint>,
    findings struct<open:bigint, opened:bigint, resolved:bigint, excepted:bigint>,
    oldest_open string COMMENT 'ISO 8601',
    previous struct<run_id:string, repositories:bigint, tags:bigint>,
    security_hub struct<accepted:bigint, refused:bigint, up_to_date:boolean>,
    trust struct<
        required_signers:array<string>, all_signers:boolean, repository_key_suffices:boolean, pinned:boolean,
        verified:bigint, without:bigint, failing:bigint, unreadable:bigint, first_use:bigint, expiring:bigint,
        first_expiring:array<struct<repository:string, role:string, expires:string>>>,
    other_hosts struct<repositories:bigint, first:array<struct<repository:string, host:string>>>,
    registry_version string COMMENT 'as the registry says; null where it does not',
    facts array<struct<subject:string, answer:string, rule_id:string, status:string>>,
    exceptions struct<version_id:string, holding:bigint, ended:bigint, unmatched:bigint, problem:string>,
    baseline struct<key:string, version_id:string, sha256:string, problem:string>,
    unreadable array<struct<repository:string, reason:string>>,
    evidence map<string, string> COMMENT 'where in the bucket each file of the evidence lies'
)
PARTITIONED BY (registry string, dt string)
ROW FORMAT SERDE 'org.apache.hive.hcatalog.data.JsonSerDe'
STORED AS INPUTFORMAT 'org.apache.hadoop.mapred.TextInputFormat'
OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'
LOCATION 's3://BUCKET/runs/'
TBLPROPERTIES (
    'projection.enabled' = 'true',
    'projection.registry.type' = 'enum',
    'projection.registry.values' = 'REGISTRY',
    'projection.dt.type' = 'date',
    'projection.dt.format' = 'yyyy-MM-dd',
    'projection.dt.range' = '2026-01-01,NOW',
    'projection.dt.interval' = '1',
    'projection.dt.interval.unit' = 'DAYS'
)
