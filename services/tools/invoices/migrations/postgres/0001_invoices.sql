-- Who the session acts for. The service states it in `drawbridge.principal`: subject, tenant and issuer, each
-- URL-encoded, joined by `@`. Vault has put a hash of the same into the name of the session's user, which the service
-- cannot choose: `v-<32 hex digits>-…`. So a service that states somebody else is found out, whatever went wrong in it.
--
-- INVARIANT: Vault's name of a user is the mount of its login, `drawbridge`, a hyphen and the principal, and the template
-- of database users hashes that name (sdk/src/credentials/bootstrap).
CREATE FUNCTION principal() RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
    SET search_path = pg_catalog
AS $$
DECLARE
    stated text := coalesce(current_setting('drawbridge.principal', true), '');
    digest text := encode(sha256(convert_to('drawbridge-' || stated, 'UTF8')), 'hex');
BEGIN
    IF stated !~ '^[^@]+@[^@]*@[^@]+$' OR split_part(session_user::text, '-', 2) <> left(digest, 32) THEN
        RAISE EXCEPTION 'this user was not made for the principal that the session states'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN stated;
END
$$;

-- The tenant that the session acts for. Who has none has a tenant of no name, in which nothing is shared.
CREATE FUNCTION tenant() RETURNS text
    LANGUAGE sql STABLE PARALLEL RESTRICTED
    RETURN split_part(principal(), '@', 2);

CREATE TABLE invoices (
    id text COLLATE "C" PRIMARY KEY,
    owner text NOT NULL,
    tenant text NOT NULL,
    shared boolean NOT NULL,
    kind integer NOT NULL,
    seller_key text NOT NULL,
    number text NOT NULL,
    issue_date text NOT NULL,
    due_date text NOT NULL,
    seller_name text NOT NULL,
    seller_vat_id text NOT NULL,
    buyer_name text NOT NULL,
    currency text NOT NULL,
    -- As the invoice writes them, and once in a form that sorts as the numbers do.
    gross_amount text NOT NULL,
    payable_amount text NOT NULL,
    payable_order text COLLATE "C" NOT NULL,
    -- What is searched, in lower case.
    supplier_text text NOT NULL,
    full_text text NOT NULL,
    -- The document as it came, and the message `ExtractResult` that was read from it.
    media_type text NOT NULL,
    document bytea NOT NULL,
    digest text NOT NULL,
    extracted bytea NOT NULL,
    saved_at text NOT NULL DEFAULT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    UNIQUE (owner, seller_key, number, issue_date),
    CHECK (tenant = split_part(owner, '@', 2)),
    CHECK (tenant <> '' OR NOT shared)
);

CREATE INDEX invoices_tenant ON invoices (tenant, id);

CREATE TABLE approvals (
    invoice_id text PRIMARY KEY REFERENCES invoices (id),
    approved_by text NOT NULL,
    approved_at text NOT NULL DEFAULT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    confirmed boolean NOT NULL
);

-- Even for the owner of the tables, who is nobody's login.
ALTER TABLE invoices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE approvals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- The subqueries ask once for each statement, not for each row.
CREATE POLICY own_and_shared ON invoices FOR SELECT TO invoices_reader
    USING (owner = (SELECT principal()) OR (shared AND tenant <> '' AND tenant = (SELECT tenant())));
CREATE POLICY whole_tenant ON invoices FOR SELECT TO invoices_approver
    USING (tenant <> '' AND tenant = (SELECT tenant()));
CREATE POLICY own_new ON invoices FOR INSERT TO invoices_writer
    WITH CHECK (owner = (SELECT principal()) AND tenant = (SELECT tenant()));
CREATE POLICY own_changed ON invoices FOR UPDATE TO invoices_writer
    USING (owner = (SELECT principal())) WITH CHECK (owner = (SELECT principal()));

-- Approvals are seen with their invoices, are made in one's own name, and stay.
CREATE POLICY seen ON approvals FOR SELECT TO invoices_reader
    USING (EXISTS (SELECT FROM invoices WHERE invoices.id = invoice_id));
CREATE POLICY own_new ON approvals FOR INSERT TO invoices_approver
    WITH CHECK (approved_by = (SELECT principal()) AND EXISTS (SELECT FROM invoices WHERE invoices.id = invoice_id));

-- Who writes and who approves is a reader too (deploy/postgres/invoices.sql).
GRANT SELECT ON invoices, approvals, _sqlx_migrations TO invoices_reader;
GRANT INSERT (
    id, owner, tenant, shared, kind, seller_key, number, issue_date, due_date, seller_name, seller_vat_id, buyer_name,
    currency, gross_amount, payable_amount, payable_order, supplier_text, full_text, media_type, document, digest, extracted
) ON invoices TO invoices_writer;
GRANT UPDATE (shared) ON invoices TO invoices_writer;
GRANT INSERT (invoice_id, approved_by, confirmed) ON approvals TO invoices_approver;
