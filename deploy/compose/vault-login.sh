#!/bin/sh
# Writes the role id of invoices, and a new secret id, for the migration of the database.
set -eu
umask 077
bao read -field=role_id auth/approle/role/invoices/role-id >/login/role-id
bao write -force -field=secret_id auth/approle/role/invoices/secret-id >/login/secret-id
