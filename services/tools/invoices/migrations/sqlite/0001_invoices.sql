-- The same as for PostgreSQL, without what guards one caller from another there: SQLite is for a mesh on one machine,
-- and the service is all that asks it.
CREATE TABLE invoices (
    id TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    tenant TEXT NOT NULL,
    shared BOOLEAN NOT NULL,
    kind INTEGER NOT NULL,
    seller_key TEXT NOT NULL,
    number TEXT NOT NULL,
    issue_date TEXT NOT NULL,
    due_date TEXT NOT NULL,
    seller_name TEXT NOT NULL,
    seller_vat_id TEXT NOT NULL,
    buyer_name TEXT NOT NULL,
    currency TEXT NOT NULL,
    gross_amount TEXT NOT NULL,
    payable_amount TEXT NOT NULL,
    payable_order TEXT NOT NULL,
    supplier_text TEXT NOT NULL,
    full_text TEXT NOT NULL,
    media_type TEXT NOT NULL,
    document BLOB NOT NULL,
    digest TEXT NOT NULL,
    extracted BLOB NOT NULL,
    saved_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UNIQUE (owner, seller_key, number, issue_date),
    CHECK (tenant <> '' OR NOT shared)
);

CREATE INDEX invoices_tenant ON invoices (tenant, id);

CREATE TABLE approvals (
    invoice_id TEXT NOT NULL PRIMARY KEY REFERENCES invoices (id),
    approved_by TEXT NOT NULL,
    approved_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    confirmed BOOLEAN NOT NULL
);

CREATE TRIGGER approvals_stay BEFORE UPDATE ON approvals BEGIN SELECT raise(ABORT, 'approvals stay as they are'); END;
CREATE TRIGGER approvals_last BEFORE DELETE ON approvals BEGIN SELECT raise(ABORT, 'approvals stay as they are'); END;
