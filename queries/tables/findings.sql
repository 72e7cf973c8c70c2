-- A row for every tag that an audit has read. The stack makes this table itself; by hand, put your names for BUCKET and REGISTRY.
-- A row counts only together with the record of its run: join with `runs` on registry, dt and run_id.
CREATE EXTERNAL TABLE findings (
    namespace string,
    repository string,
    tag string,
    digest string,
    verdict string COMMENT 'SIGNED, UNSIGNED, MISMATCHED, UNTRUSTED, UNKNOWN; null: a signature, no image',
    reason string,
    in_notary boolean,
    hash_mismatch boolean,
    signed_domain string,
    signers array<string>,
    trust_expires string COMMENT 'ISO 8601; null unless trust is verified',
    cosign_signed boolean,
    artifact boolean,
    exception_id string,
    exception_ends string COMMENT 'YYYY-MM-DD, the last day on which the exception holds',
    author string,
    author_name string COMMENT 'of the account, for a finding; null where the registry does not name it',
    pushed_at string COMMENT 'ISO 8601, as the registry says it',
    media_type string,
    rule_id string,
    run_id string,
    audited_at string COMMENT 'ISO 8601'
)
PARTITIONED BY (registry string, dt string)
ROW FORMAT SERDE 'org.apache.hive.hcatalog.data.JsonSerDe'
STORED AS INPUTFORMAT 'org.apache.hadoop.mapred.TextInputFormat'
OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'
LOCATION 's3://BUCKET/findings/'
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
