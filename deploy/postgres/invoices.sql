-- A database administrator runs this once, before `drawbridge-invoices migrate` and
-- `drawbridge vault bootstrap`:
--
--   psql --set vault=vault --file deploy/postgres/invoices.sql
--
-- `vault` is Vault's own user, which creates all others. No user logs in as one of these roles.

-- Owns the schema and its contents. The migration user is a member for a few minutes.
CREATE ROLE invoices_owner NOLOGIN;
-- Reads invoices of its own or shared with its tenant.
CREATE ROLE invoices_reader NOLOGIN;
-- Stores and changes its own invoices.
CREATE ROLE invoices_writer NOLOGIN IN ROLE invoices_reader;
-- Reads and approves all invoices of its tenant.
CREATE ROLE invoices_approver NOLOGIN IN ROLE invoices_reader;

CREATE SCHEMA invoices AUTHORIZATION invoices_owner;
GRANT USAGE ON SCHEMA invoices TO invoices_reader;

GRANT invoices_owner, invoices_reader, invoices_writer, invoices_approver TO :"vault" WITH ADMIN OPTION;
