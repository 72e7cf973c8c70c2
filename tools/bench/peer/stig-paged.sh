#!/bin/bash
# The same loop with what it lacks to see everything: it follows X-Next-Page-Start, in pages of PAGE_SIZE if that is set.
AUTHTOKEN=$(curl -s --cacert "$CA_FILE" -u "$DTR_USERNAME:$DTR_PASSWORD" -X GET "https://$DTR_HOST/auth/token" | jq -r .token)
HEADERS=$(mktemp)
trap 'rm -f "$HEADERS"' EXIT

pages() { # of a list: its path, and a query
    local next="" size=()
    [ -n "$PAGE_SIZE" ] && size=(--data-urlencode "pageSize=$PAGE_SIZE")
    while true; do
        curl -s --cacert "$CA_FILE" -H "Authorization: Bearer $AUTHTOKEN" -D "$HEADERS" -G "https://$DTR_HOST$1" \
            --data-urlencode "$2" "${size[@]}" --data-urlencode "pageStart=$next"
        next=$(sed -n 's/^[Xx]-[Nn]ext-[Pp]age-[Ss]tart: *\([^\r]*\).*/\1/p' "$HEADERS")
        [ -n "$next" ] || break
    done
}

REPOS=$(pages /api/v0/repositories "count=true" | jq -r '.repositories[] | "\(.namespace)/\(.name)"')
for r in $REPOS; do pages "/api/v0/repositories/$r/tags" "domain=$DTR_HOST"; done | jq -r '.[] | [.name, .inNotary] | @csv'
