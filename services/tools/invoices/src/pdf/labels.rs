//! The labels of invoice fields.

/// The labels of a field, in lower case: unambiguous and ambiguous ones. English, German, French,
/// Dutch, Spanish, Italian.
pub(super) struct Labels {
    pub(super) sure: &'static [&'static str],
    pub(super) likely: &'static [&'static str],
    /// Words next to which an ambiguous label means something else.
    pub(super) excluded: &'static [&'static str],
}

pub(super) const NUMBER: Labels = Labels {
    sure: &[
        "invoice number",
        "invoice no",
        "invoice #",
        "invoice id",
        "credit note number",
        "credit note no",
        "rechnungsnummer",
        "rechnungs-nr",
        "rechnungsnr",
        "rechnung nr",
        "gutschriftsnummer",
        "numéro de facture",
        "n° de facture",
        "facture n°",
        "facture no",
        "factuurnummer",
        "número de factura",
        "factura nº",
        "numero fattura",
        "fattura n",
    ],
    likely: &["invoice", "rechnung", "facture", "factuur", "factura", "fattura"],
    excluded: &["date", "datum", "address", "adresse", "to", "an", "amount", "total"],
};
pub(super) const ISSUED: Labels = Labels {
    sure: &[
        "invoice date",
        "date of issue",
        "issue date",
        "rechnungsdatum",
        "date de facture",
        "date de la facture",
        "date de facturation",
        "date d'émission",
        "factuurdatum",
        "fecha de factura",
        "fecha de emisión",
        "data fattura",
    ],
    likely: &["date", "datum", "fecha", "data"],
    excluded: &[
        "due",
        "delivery",
        "order",
        "fällig",
        "liefer",
        "lieferdatum",
        "leistungsdatum",
        "échéance",
        "livraison",
        "commande",
    ],
};
pub(super) const DUE: Labels = Labels {
    sure: &[
        "due date",
        "payment due",
        "pay by",
        "fälligkeitsdatum",
        "fällig am",
        "zahlbar bis",
        "date d'échéance",
        "échéance",
        "vervaldatum",
        "fecha de vencimiento",
        "data di scadenza",
        "scadenza",
    ],
    likely: &["due", "fällig"],
    excluded: &["amount", "total", "balance"],
};
pub(super) const NET: Labels = Labels {
    sure: &[
        "total excluding vat",
        "total excl",
        "net total",
        "net amount",
        "total net",
        "nettobetrag",
        "gesamt netto",
        "summe netto",
        "total ht",
        "montant ht",
        "totaal excl",
        "base imponible",
        "imponibile",
    ],
    likely: &["subtotal", "sub-total", "netto", "zwischensumme", "sous-total", "subtotaal"],
    excluded: &[],
};
pub(super) const TAX: Labels = Labels {
    sure: &[
        "total vat",
        "vat amount",
        "total tax",
        "mwst",
        "mehrwertsteuer",
        "umsatzsteuer",
        "montant tva",
        "total tva",
        "btw-bedrag",
        "cuota iva",
        "importe iva",
    ],
    likely: &["vat", "tax", "sales tax", "ust", "tva", "btw", "iva"],
    excluded: &["incl", "including", "excl", "excluding", "id", "no", "reg", "inkl", "total"],
};
pub(super) const GROSS: Labels = Labels {
    sure: &[
        "total including vat",
        "total incl",
        "grand total",
        "invoice total",
        "gesamtbetrag",
        "bruttobetrag",
        "gesamt brutto",
        "endbetrag",
        "rechnungsbetrag",
        "total ttc",
        "montant ttc",
        "totaal incl",
        "total factura",
        "totale fattura",
    ],
    likely: &["total", "gesamt", "summe", "totaal", "totale"],
    excluded: &[
        "net",
        "netto",
        "excl",
        "excluding",
        "ht",
        "vat",
        "tax",
        "mwst",
        "ust",
        "tva",
        "btw",
        "iva",
    ],
};
pub(super) const PAYABLE: Labels = Labels {
    sure: &[
        "amount due",
        "balance due",
        "total due",
        "amount payable",
        "zahlbetrag",
        "zu zahlen",
        "net à payer",
        "montant à payer",
        "reste à payer",
        "te betalen",
        "total a pagar",
        "totale da pagare",
    ],
    likely: &[],
    excluded: &[],
};
pub(super) const CREDIT_NOTE: &[&str] = &[
    "credit note",
    "gutschrift",
    "rechnungskorrektur",
    "avoir",
    "creditnota",
    "nota de crédito",
    "nota di credito",
];

/// Words next to the buyer's VAT identifier.
pub(super) const BUYERS: &[&str] =
    &["your vat", "customer vat", "buyer", "ihre ust", "kunde", "votre tva", "client", "uw btw"];
