-- What a database administrator runs once, before `drawbridge-invoices migrate` and `drawbridge vault bootstrap`:
--
--   psql --set vault=vault --file deploy/postgres/invoices.sql
--
-- `vault` is Vault's own user, which makes all others. Nobody logs in as the roles that stand here.

-- Owns the schema and all that is in it. Who migrates is a member for a few minutes.
CREATE ROLE invoices_owner NOLOGIN;
-- See what is their own, or shared with their tenant.
CREATE ROLE invoices_reader NOLOGIN;
-- Store and change what is their own.
CREATE ROLE invoices_writer NOLOGIN IN ROLE invoices_reader;
-- See and approve whatever their tenant has.
CREATE ROLE invoices_approver NOLOGIN IN ROLE invoices_reader;

CREATE SCHEMA invoices AUTHORIZATION invoices_owner;
GRANT USAGE ON SCHEMA invoices TO invoices_reader;

GRANT invoices_owner, invoices_reader, invoices_writer, invoices_approver TO :"vault" WITH ADMIN OPTION;
