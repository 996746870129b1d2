#!/usr/bin/env bash
# A text becomes a picture and a film, over HTTP alone: examples/chain.sh [FOLDER]
#
# Where Flik is comes from FLIK_URL, the key from FLIK_API_KEY or admin_key in FLIK_DATA_DIR (or .flik), and whose dag
# it is from FLIK_TENANT, as with the command line. Needs curl and python3.
set -euo pipefail

folder=${1:-.}
url=${FLIK_URL:-http://127.0.0.1:8080}
url=${url%/}
header=$(mktemp) # the key stays out of curl's arguments, which everybody on the machine can see
trap 'rm -f "$header"' EXIT
if [ -n "${FLIK_API_KEY:-}" ]; then
  printf 'Authorization: Bearer %s\n' "$FLIK_API_KEY" >"$header"
else
  cat "${FLIK_DATA_DIR:-.flik}/admin_key.header" >"$header"
fi

ask() { # prints the answer; what is refused goes to stderr, and ends this
  local answer
  answer=$(curl -sS --fail-with-body -H "@$header" "$@") || { echo "$answer" >&2; return 1; }
  echo "$answer"
}

field() { # field NAME reads a JSON answer
  python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

body=$(python3 - <<'EOF'
import json, os
print(json.dumps({
    "tenantId": os.environ.get("FLIK_TENANT") or "demo",
    "metadata": {"example": "chain"},
    "steps": [
        {"id": "describe", "taskType": "TEXT",
         "payload": {"prompt": "a harbour in the morning fog", "maxWords": 40, "seed": 11}},
        {"id": "draw", "taskType": "IMAGE", "payload": {"width": 512, "height": 512, "seed": 11}},
        {"id": "film", "taskType": "VIDEO", "payload": {"prompt": {"$from": "describe"}, "lengthS": 2, "seed": 11}},
    ],
}))
EOF
)
answer=$(ask "$url/api/v1/dags" -H 'Content-Type: application/json' \
  -H "Idempotency-Key: \"example-$$-$(date +%s)\"" --data "$body")
dag=$(field dagId <<<"$answer")
echo "dag $dag"

while :; do
  answer=$(ask "$url/api/v1/dags/$dag")
  status=$(field status <<<"$answer")
  python3 -c 'import json, sys
print(*(task["stepId"] + " " + task["status"] for task in json.load(sys.stdin)["tasks"]), sep="  ")' <<<"$answer"
  [ "$status" = RUNNING ] || break
  sleep 1
done
[ "$status" = COMPLETED ] || { echo "it ended as $status" >&2; exit 1; }

film=$(python3 -c 'import json, sys
tasks = {task["stepId"]: task for task in json.load(sys.stdin)["tasks"]}
print(tasks["film"]["result"]["artifacts"][0]["url"])' <<<"$answer")
mkdir -p "$folder"
case $film in http*) ;; *) film=$url$film ;; esac
curl -sS --fail -o "$folder/film.mp4" "$film" # the link is signed, and works without a key
echo "$folder/film.mp4"
