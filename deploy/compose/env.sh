#!/usr/bin/env bash
# Prints the variables that deploy/compose.yaml needs: the version of this checkout, the user that may
# read deploy/mtls, and new secrets. Store the output: with another secret open sessions end, and
# PostgreSQL has the passwords with which it was created.
#
#   deploy/compose/env.sh >deploy/.env
set -euo pipefail
umask 077

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
echo "DRAWBRIDGE_VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$here/../../Cargo.toml" | head -n 1)"
mkdir -p "$here/login"
# Services never run as root: root gives the keys to the images' own user.
if ((EUID == 0)); then
  chown -R 65532:65532 "$here/../mtls" "$here/login"
  echo "DRAWBRIDGE_USER=65532:65532"
else
  echo "DRAWBRIDGE_USER=$EUID:$(id -g)"
fi
echo "DRAWBRIDGE_EDGE_SECRET=$(openssl rand -base64 32)"
for secret in POSTGRES_PASSWORD VAULT_DATABASE_PASSWORD VAULT_TOKEN; do
  echo "DRAWBRIDGE_$secret=$(openssl rand -hex 24)"
done
