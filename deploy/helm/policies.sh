#!/usr/bin/env bash
# Writes a folder of policies as values of the chart, without their tests, to standard output:
#
#   deploy/helm/policies.sh policies >policies.yaml
#   helm upgrade … --values policies.yaml
set -euo pipefail

folder=${1:?usage: deploy/helm/policies.sh FOLDER}
cd "$folder"
printf 'policies:\n  files:\n'
# Like auth, without hidden files. Text is written as JSON strings, which YAML reads too.
find . -type f ! -path '*/.*' ! -path './tests/*' -printf '%P\n' | LC_ALL=C sort | while read -r path; do
  [[ $path =~ ^[A-Za-z0-9._/-]+$ ]] || { echo "policies: $path: use letters, digits, . _ and -" >&2; exit 1; }
  printf '    "%s": |2\n' "$path"
  sed -e 's/^/      /' -e 's/[[:space:]]*$//' "$path"
  printf '\n'
done
