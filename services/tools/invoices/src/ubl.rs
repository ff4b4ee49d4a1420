//! Reads invoices and credit notes of UBL 2.1 with the EN 16931 binding of CEN/TS 16931-3-2.

use drawbridge_proto::invoices::v1::{
    Address, AllowanceCharge, Contact, Identifier, Invoice, InvoiceKind, Line, Party, PaymentMeans,
    Syntax, TaxCategory, TaxSubtotal, Totals,
};

use crate::{
    values::{self, Values, text},
    xml::Element,
};

/// Reads an `Invoice` or a `CreditNote`.
pub(crate) fn read(root: &Element<'_>, values: &mut Values) -> Invoice {
    let credit_note = root.name == "CreditNote";
    let (type_code, line_name) = if credit_note {
        ("CreditNoteTypeCode", "CreditNoteLine")
    } else {
        ("InvoiceTypeCode", "InvoiceLine")
    };
    let type_code = text(root.at(type_code));
    let kind = if credit_note { InvoiceKind::CreditNote } else { values::kind(&type_code) };
    // A credit note has its due date in the payment means.
    let due_date = root.at("DueDate").or_else(|| root.at("PaymentMeans/PaymentDueDate"));
    let representative = root.at("TaxRepresentativeParty");
    Invoice {
        syntax: Syntax::Ubl.into(),
        kind: kind.into(),
        specification: text(root.at("CustomizationID")),
        process: text(root.at("ProfileID")),
        number: text(root.at("ID")),
        type_code,
        issue_date: values.date(root.at("IssueDate"), "issue_date"),
        due_date: values.date(due_date, "due_date"),
        delivery_date: values.date(root.at("Delivery/ActualDeliveryDate"), "delivery_date"),
        period_start: values.date(root.at("InvoicePeriod/StartDate"), "period_start"),
        period_end: values.date(root.at("InvoicePeriod/EndDate"), "period_end"),
        currency: text(root.at("DocumentCurrencyCode")),
        tax_currency: text(root.at("TaxCurrencyCode")),
        buyer_reference: text(root.at("BuyerReference")),
        order_reference: text(root.at("OrderReference/ID")),
        contract_reference: text(root.at("ContractDocumentReference/ID")),
        preceding_invoices: root
            .all("BillingReference")
            .filter_map(|reference| reference.at("InvoiceDocumentReference/ID"))
            .map(|id| id.text().to_owned())
            .collect(),
        notes: root.all("Note").map(|note| note.text().to_owned()).collect(),
        seller: root.at("AccountingSupplierParty/Party").map(legal_party),
        buyer: root.at("AccountingCustomerParty/Party").map(legal_party),
        payee: root.at("PayeeParty").map(party),
        tax_representative: representative.map(party),
        payment_means: root.all("PaymentMeans").map(payment_means).collect(),
        payment_terms: text(root.at("PaymentTerms/Note")),
        allowances_charges: allowances_charges(root, "", values),
        taxes: taxes(root, values),
        totals: Some(totals(root, values)),
        lines: root
            .all(line_name)
            .enumerate()
            .map(|(index, element)| line(element, &format!("lines[{index}]"), values))
            .collect(),
    }
}

/// A seller or a buyer, with the registered name.
fn legal_party(element: &Element<'_>) -> Party {
    let read = party(element);
    match element.at("PartyLegalEntity/RegistrationName") {
        Some(_) => read,
        None => Party { trading_name: read.name, name: String::new(), ..read },
    }
}

fn party(party: &Element<'_>) -> Party {
    let trading_name = text(party.at("PartyName/Name"));
    let legal = party.at("PartyLegalEntity");
    // A payee and a tax representative have only one name.
    let name =
        legal.and_then(|legal| legal.at("RegistrationName")).map(|name| name.text().to_owned());
    let tax = |vat: bool| {
        party
            .all("PartyTaxScheme")
            .find(|scheme| is_vat(scheme) == vat)
            .map(|scheme| text(scheme.at("CompanyID")))
            .unwrap_or_default()
    };
    Party {
        trading_name: if name.is_some() { trading_name.clone() } else { String::new() },
        name: name.unwrap_or(trading_name),
        identifiers: party
            .all("PartyIdentification")
            .filter_map(|identification| identification.at("ID"))
            .map(identifier)
            .collect(),
        legal_registration: legal.and_then(|legal| legal.at("CompanyID")).map(identifier),
        vat_id: tax(true),
        tax_registration: tax(false),
        electronic_address: party.at("EndpointID").map(identifier),
        address: party.at("PostalAddress").map(|address| Address {
            lines: ["StreetName", "AdditionalStreetName", "AddressLine/Line"]
                .into_iter()
                .filter_map(|path| address.at(path))
                .map(|line| line.text().to_owned())
                .collect(),
            city: text(address.at("CityName")),
            post_code: text(address.at("PostalZone")),
            subdivision: text(address.at("CountrySubentity")),
            country: text(address.at("Country/IdentificationCode")),
        }),
        contact: party.at("Contact").map(|contact| Contact {
            name: text(contact.at("Name")),
            telephone: text(contact.at("Telephone")),
            email: text(contact.at("ElectronicMail")),
        }),
    }
}

/// Whether a tax scheme, or the scheme in this element, is VAT.
fn is_vat(holder: &Element<'_>) -> bool {
    holder.at("TaxScheme/ID").is_some_and(|id| id.text().eq_ignore_ascii_case("VAT"))
}

fn identifier(element: &Element<'_>) -> Identifier {
    let scheme = element.attribute("schemeID").unwrap_or_default().to_owned();
    Identifier { value: element.text().to_owned(), scheme }
}

fn payment_means(means: &Element<'_>) -> PaymentMeans {
    let code = means.at("PaymentMeansCode");
    let name = code.and_then(|code| code.attribute("name")).unwrap_or_default();
    PaymentMeans {
        code: text(code),
        text: name.to_owned(),
        reference: text(means.at("PaymentID")),
        account: text(means.at("PayeeFinancialAccount/ID")),
        account_name: text(means.at("PayeeFinancialAccount/Name")),
        bank: text(means.at("PayeeFinancialAccount/FinancialInstitutionBranch/ID")),
        mandate: text(means.at("PaymentMandate/ID")),
        debited_account: text(means.at("PaymentMandate/PayerFinancialAccount/ID")),
    }
}

/// The allowances and charges of the document, or of the line at this path.
fn allowances_charges(
    holder: &Element<'_>,
    path: &str,
    values: &mut Values,
) -> Vec<AllowanceCharge> {
    let mut all = Vec::new();
    for (index, element) in holder.all("AllowanceCharge").enumerate() {
        let field = |name: &str| format!("{path}allowances_charges[{index}].{name}");
        all.push(AllowanceCharge {
            charge: matches!(text(element.at("ChargeIndicator")).as_str(), "true" | "1"),
            amount: values.decimal(element.at("Amount"), &field("amount")),
            base_amount: values.decimal(element.at("BaseAmount"), &field("base_amount")),
            percent: values.decimal(element.at("MultiplierFactorNumeric"), &field("percent")),
            reason: text(element.at("AllowanceChargeReason")),
            reason_code: text(element.at("AllowanceChargeReasonCode")),
            tax: element.at("TaxCategory").map(|tax| tax_category(tax, &field("tax"), values)),
        });
    }
    all
}

fn tax_category(category: &Element<'_>, path: &str, values: &mut Values) -> TaxCategory {
    let percent = values.decimal(category.at("Percent"), &format!("{path}.percent"));
    TaxCategory { code: text(category.at("ID")), percent }
}

/// The VAT total in the document's currency; of several, the one with a breakdown. If none has a
/// currency, the one with a breakdown.
fn tax_total<'e, 'a>(root: &'e Element<'a>) -> Option<&'e Element<'a>> {
    let currency = text(root.at("DocumentCurrencyCode"));
    let said = |total: &Element<'_>| {
        total.at("TaxAmount").and_then(|amount| amount.attribute("currencyID")).map(str::to_owned)
    };
    let is_broken_down = |total: &&Element<'_>| total.at("TaxSubtotal").is_some();
    let in_currency =
        || root.all("TaxTotal").filter(|total| said(total).as_ref() == Some(&currency));
    let unsaid = || root.all("TaxTotal").filter(|total| said(total).is_none());
    let any = || root.all("TaxTotal").filter(|_| currency.is_empty());
    in_currency()
        .find(is_broken_down)
        .or_else(|| in_currency().next())
        .or_else(|| unsaid().find(is_broken_down))
        .or_else(|| unsaid().next())
        .or_else(|| any().find(is_broken_down))
        .or_else(|| any().next())
}

fn taxes(root: &Element<'_>, values: &mut Values) -> Vec<TaxSubtotal> {
    let Some(total) = tax_total(root) else { return Vec::new() };
    let mut taxes = Vec::new();
    for (index, element) in total.all("TaxSubtotal").enumerate() {
        let field = |name: &str| format!("taxes[{index}].{name}");
        taxes.push(TaxSubtotal {
            category: element
                .at("TaxCategory")
                .map(|category| tax_category(category, &field("category"), values)),
            taxable_amount: values.decimal(element.at("TaxableAmount"), &field("taxable_amount")),
            tax_amount: values.decimal(element.at("TaxAmount"), &field("tax_amount")),
            exemption_reason: text(element.at("TaxCategory/TaxExemptionReason")),
            exemption_reason_code: text(element.at("TaxCategory/TaxExemptionReasonCode")),
        });
    }
    taxes
}

fn totals(root: &Element<'_>, values: &mut Values) -> Totals {
    let total = tax_total(root);
    let tax_currency = text(root.at("TaxCurrencyCode"));
    let in_tax_currency =
        root.all("TaxTotal").filter_map(|total| total.at("TaxAmount")).find(|amount| {
            !tax_currency.is_empty()
                && tax_currency != text(root.at("DocumentCurrencyCode"))
                && amount.attribute("currencyID") == Some(&tax_currency)
        });
    let tax_amount = total.and_then(|total| total.at("TaxAmount"));
    let mut amount = |name: &str, field: &str| {
        values.decimal(
            root.at("LegalMonetaryTotal").and_then(|totals| totals.all(name).next()),
            field,
        )
    };
    Totals {
        line_net_amount: amount("LineExtensionAmount", "totals.line_net_amount"),
        allowance_amount: amount("AllowanceTotalAmount", "totals.allowance_amount"),
        charge_amount: amount("ChargeTotalAmount", "totals.charge_amount"),
        net_amount: amount("TaxExclusiveAmount", "totals.net_amount"),
        gross_amount: amount("TaxInclusiveAmount", "totals.gross_amount"),
        prepaid_amount: amount("PrepaidAmount", "totals.prepaid_amount"),
        rounding_amount: amount("PayableRoundingAmount", "totals.rounding_amount"),
        payable_amount: amount("PayableAmount", "totals.payable_amount"),
        tax_amount: values.decimal(tax_amount, "totals.tax_amount"),
        tax_amount_in_tax_currency: values
            .decimal(in_tax_currency, "totals.tax_amount_in_tax_currency"),
    }
}

fn line(line: &Element<'_>, path: &str, values: &mut Values) -> Line {
    let field = |name: &str| format!("{path}.{name}");
    let quantity = line.at("InvoicedQuantity").or_else(|| line.at("CreditedQuantity"));
    let unit = quantity.and_then(|quantity| quantity.attribute("unitCode")).unwrap_or_default();
    Line {
        id: text(line.at("ID")),
        note: text(line.at("Note")),
        item_name: text(line.at("Item/Name")),
        item_description: text(line.at("Item/Description")),
        seller_item_id: text(line.at("Item/SellersItemIdentification/ID")),
        buyer_item_id: text(line.at("Item/BuyersItemIdentification/ID")),
        standard_item_id: line.at("Item/StandardItemIdentification/ID").map(identifier),
        order_line: text(line.at("OrderLineReference/LineID")),
        quantity: values.decimal(quantity, &field("quantity")),
        unit: unit.to_owned(),
        price: values.decimal(line.at("Price/PriceAmount"), &field("price")),
        price_base_quantity: values
            .decimal(line.at("Price/BaseQuantity"), &field("price_base_quantity")),
        allowances_charges: allowances_charges(line, &format!("{path}."), values),
        net_amount: values.decimal(line.at("LineExtensionAmount"), &field("net_amount")),
        tax: line
            .at("Item/ClassifiedTaxCategory")
            .map(|category| tax_category(category, &field("tax"), values)),
        period_start: values.date(line.at("InvoicePeriod/StartDate"), &field("period_start")),
        period_end: values.date(line.at("InvoicePeriod/EndDate"), &field("period_end")),
        ..Line::default()
    }
}
