#!/bin/sh
# Runs once, when the image of PostgreSQL creates the database: the roles of invoices, and Vault's user.
set -eu
psql --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname "$POSTGRES_DB" \
  --set "password=$VAULT_PASSWORD" <<'SQL'
CREATE ROLE vault LOGIN CREATEROLE PASSWORD :'password';
SQL
psql --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname "$POSTGRES_DB" \
  --set vault=vault --file /drawbridge/invoices.sql
