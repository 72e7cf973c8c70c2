#!/bin/bash
# The loop of rule V-235846, as its check text writes it, but that certificates are verified: --cacert in the place of -k.
# It asks for no page, and so sees ten repositories and ten tags of each.
AUTHTOKEN=$(curl -s --cacert "$CA_FILE" -u "$DTR_USERNAME:$DTR_PASSWORD" -X GET "https://$DTR_HOST/auth/token" | jq -r .token)
REPOS=$(curl -s --cacert "$CA_FILE" -H "Authorization: Bearer $AUTHTOKEN" -X GET "https://$DTR_HOST/api/v0/repositories" | jq -r '.repositories[] | "\(.namespace)/\(.name)"')
for r in $REPOS; do curl -s --cacert "$CA_FILE" -H "Authorization: Bearer $AUTHTOKEN" -X GET "https://$DTR_HOST/api/v0/repositories/$r/tags?domain=$DTR_HOST"; done | jq -r '.[] | [.name, .inNotary] | @csv'
