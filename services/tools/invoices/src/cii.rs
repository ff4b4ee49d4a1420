//! Reads the Cross Industry Invoice of UN/CEFACT (D16B) with the EN 16931 binding of CEN/TS
//! 16931-3-3: XRechnung, Factur-X and ZUGFeRD 2.

use drawbridge_proto::invoices::v1::{
    Address, AllowanceCharge, Contact, Identifier, Invoice, Line, Party, PaymentMeans, Syntax,
    TaxCategory, TaxSubtotal, Totals,
};

use crate::{
    values::{self, Values, text},
    xml::Element,
};

/// Reads a `CrossIndustryInvoice`.
pub(crate) fn read(root: &Element<'_>, values: &mut Values) -> Invoice {
    // A missing element reads as empty.
    let nothing = Element::default();
    let part = |path| root.at(path).unwrap_or(&nothing);
    let document = part("ExchangedDocument");
    let agreement = part("SupplyChainTradeTransaction/ApplicableHeaderTradeAgreement");
    let delivery = part("SupplyChainTradeTransaction/ApplicableHeaderTradeDelivery");
    let settlement = part("SupplyChainTradeTransaction/ApplicableHeaderTradeSettlement");
    let context = |name: &str| {
        text(part("ExchangedDocumentContext").at(name).and_then(|parameter| parameter.at("ID")))
    };
    let type_code = text(document.at("TypeCode"));
    let kind = values::kind(&type_code);
    let due_date = settlement
        .all("SpecifiedTradePaymentTerms")
        .find_map(|terms| terms.at("DueDateDateTime/DateTimeString"));
    let mut date =
        |holder: &Element<'_>, path: &str, field: &str| values.date_102(holder.at(path), field);
    Invoice {
        syntax: Syntax::Cii.into(),
        kind: kind.into(),
        specification: context("GuidelineSpecifiedDocumentContextParameter"),
        process: context("BusinessProcessSpecifiedDocumentContextParameter"),
        number: text(document.at("ID")),
        type_code,
        issue_date: date(document, "IssueDateTime/DateTimeString", "issue_date"),
        delivery_date: date(
            delivery,
            "ActualDeliverySupplyChainEvent/OccurrenceDateTime/DateTimeString",
            "delivery_date",
        ),
        period_start: date(settlement, PERIOD_START, "period_start"),
        period_end: date(settlement, PERIOD_END, "period_end"),
        due_date: values.date_102(due_date, "due_date"),
        currency: text(settlement.at("InvoiceCurrencyCode")),
        tax_currency: text(settlement.at("TaxCurrencyCode")),
        buyer_reference: text(agreement.at("BuyerReference")),
        order_reference: text(agreement.at("BuyerOrderReferencedDocument/IssuerAssignedID")),
        contract_reference: text(agreement.at("ContractReferencedDocument/IssuerAssignedID")),
        preceding_invoices: texts(settlement, "InvoiceReferencedDocument", "IssuerAssignedID"),
        notes: texts(document, "IncludedNote", "Content"),
        seller: agreement.at("SellerTradeParty").map(party),
        buyer: agreement.at("BuyerTradeParty").map(party),
        payee: settlement.at("PayeeTradeParty").map(party),
        tax_representative: agreement.at("SellerTaxRepresentativeTradeParty").map(party),
        payment_means: settlement
            .all("SpecifiedTradeSettlementPaymentMeans")
            .map(|means| payment_means(means, settlement))
            .collect(),
        payment_terms: texts(settlement, "SpecifiedTradePaymentTerms", "Description").join("\n"),
        allowances_charges: allowances_charges(settlement, "", values),
        taxes: taxes(settlement, values),
        totals: Some(totals(settlement, values)),
        lines: part("SupplyChainTradeTransaction")
            .all("IncludedSupplyChainTradeLineItem")
            .enumerate()
            .map(|(index, element)| line(element, &format!("lines[{index}]"), values))
            .collect(),
    }
}

const PERIOD_START: &str = "BillingSpecifiedPeriod/StartDateTime/DateTimeString";
const PERIOD_END: &str = "BillingSpecifiedPeriod/EndDateTime/DateTimeString";

/// The texts at `path` in each child of this name.
fn texts(holder: &Element<'_>, name: &str, path: &str) -> Vec<String> {
    holder
        .all(name)
        .filter_map(|child| child.at(path))
        .map(|found| found.text().to_owned())
        .collect()
}

fn party(party: &Element<'_>) -> Party {
    let registration = |schemes: &[&str]| {
        party
            .all("SpecifiedTaxRegistration")
            .filter_map(|registration| registration.at("ID"))
            .find(|id| id.attribute("schemeID").is_some_and(|scheme| schemes.contains(&scheme)))
            .map(|id| id.text().to_owned())
            .unwrap_or_default()
    };
    let contact = |contact: &Element<'_>| Contact {
        name: text(contact.at("PersonName").or_else(|| contact.at("DepartmentName"))),
        telephone: text(contact.at("TelephoneUniversalCommunication/CompleteNumber")),
        email: text(contact.at("EmailURIUniversalCommunication/URIID")),
    };
    Party {
        name: text(party.at("Name")),
        trading_name: text(party.at("SpecifiedLegalOrganization/TradingBusinessName")),
        identifiers: party.all("ID").chain(party.all("GlobalID")).map(identifier).collect(),
        legal_registration: party.at("SpecifiedLegalOrganization/ID").map(identifier),
        vat_id: registration(&["VA", "VAT"]),
        tax_registration: registration(&["FC"]),
        electronic_address: party.at("URIUniversalCommunication/URIID").map(identifier),
        address: party.at("PostalTradeAddress").map(|address| Address {
            lines: ["LineOne", "LineTwo", "LineThree"]
                .into_iter()
                .filter_map(|name| address.at(name))
                .map(|line| line.text().to_owned())
                .collect(),
            city: text(address.at("CityName")),
            post_code: text(address.at("PostcodeCode")),
            subdivision: text(address.at("CountrySubDivisionName")),
            country: text(address.at("CountryID")),
        }),
        contact: party.at("DefinedTradeContact").map(contact),
    }
}

fn identifier(element: &Element<'_>) -> Identifier {
    let scheme = element.attribute("schemeID").unwrap_or_default().to_owned();
    Identifier { value: element.text().to_owned(), scheme }
}

fn payment_means(means: &Element<'_>, settlement: &Element<'_>) -> PaymentMeans {
    let account = means.at("PayeePartyCreditorFinancialAccount");
    let number =
        account.and_then(|account| account.at("IBANID").or_else(|| account.at("ProprietaryID")));
    let mandate = settlement
        .all("SpecifiedTradePaymentTerms")
        .find_map(|terms| terms.at("DirectDebitMandateID"));
    PaymentMeans {
        code: text(means.at("TypeCode")),
        text: text(means.at("Information")),
        reference: text(settlement.at("PaymentReference")),
        account: text(number),
        account_name: text(account.and_then(|account| account.at("AccountName"))),
        bank: text(means.at("PayeeSpecifiedCreditorFinancialInstitution/BICID")),
        mandate: text(mandate),
        debited_account: text(means.at("PayerPartyDebtorFinancialAccount/IBANID")),
    }
}

/// The allowances and charges of the document, or of the line at this path. The logistics charges
/// of Factur-X EXTENDED (BG-X-42) are last.
fn allowances_charges(
    holder: &Element<'_>,
    path: &str,
    values: &mut Values,
) -> Vec<AllowanceCharge> {
    let mut all = Vec::new();
    for (index, element) in holder.all("SpecifiedTradeAllowanceCharge").enumerate() {
        let field = |name: &str| format!("{path}allowances_charges[{index}].{name}");
        all.push(AllowanceCharge {
            charge: matches!(text(element.at("ChargeIndicator/Indicator")).as_str(), "true" | "1"),
            amount: values.decimal(element.at("ActualAmount"), &field("amount")),
            base_amount: values.decimal(element.at("BasisAmount"), &field("base_amount")),
            percent: values.decimal(element.at("CalculationPercent"), &field("percent")),
            reason: text(element.at("Reason")),
            reason_code: text(element.at("ReasonCode")),
            tax: element.at("CategoryTradeTax").map(|tax| tax_category(tax, &field("tax"), values)),
        });
    }
    for element in holder.all("SpecifiedLogisticsServiceCharge") {
        let field = |name: &str| format!("{path}allowances_charges[{}].{name}", all.len());
        let charge = AllowanceCharge {
            charge: true,
            amount: values.decimal(element.at("AppliedAmount"), &field("amount")),
            reason: text(element.at("Description")),
            tax: element.at("AppliedTradeTax").map(|tax| tax_category(tax, &field("tax"), values)),
            ..AllowanceCharge::default()
        };
        all.push(charge);
    }
    all
}

fn tax_category(tax: &Element<'_>, path: &str, values: &mut Values) -> TaxCategory {
    let percent = values.decimal(tax.at("RateApplicablePercent"), &format!("{path}.percent"));
    TaxCategory { code: text(tax.at("CategoryCode")), percent }
}

fn taxes(settlement: &Element<'_>, values: &mut Values) -> Vec<TaxSubtotal> {
    let mut taxes = Vec::new();
    for (index, element) in settlement.all("ApplicableTradeTax").enumerate() {
        let field = |name: &str| format!("taxes[{index}].{name}");
        taxes.push(TaxSubtotal {
            category: Some(tax_category(element, &field("category"), values)),
            taxable_amount: values.decimal(element.at("BasisAmount"), &field("taxable_amount")),
            tax_amount: values.decimal(element.at("CalculatedAmount"), &field("tax_amount")),
            exemption_reason: text(element.at("ExemptionReason")),
            exemption_reason_code: text(element.at("ExemptionReasonCode")),
        });
    }
    taxes
}

fn totals(settlement: &Element<'_>, values: &mut Values) -> Totals {
    let nothing = Element::default();
    let sums = settlement.at("SpecifiedTradeSettlementHeaderMonetarySummation").unwrap_or(&nothing);
    let currency = text(settlement.at("InvoiceCurrencyCode"));
    let tax_currency = text(settlement.at("TaxCurrencyCode"));
    // The currency may be omitted if there is only one.
    let in_currency = |name: &'static str| {
        let said = |amount: &Element<'_>| amount.attribute("currencyID").map(str::to_owned);
        let one = sums.all(name).find(|amount| said(amount).as_ref() == Some(&currency));
        let unsaid = || sums.all(name).find(|amount| said(amount).is_none());
        one.or_else(unsaid).or_else(|| {
            sums.all(name).next().filter(|_| name != "TaxTotalAmount" || currency.is_empty())
        })
    };
    let in_tax_currency = sums.all("TaxTotalAmount").find(|amount| {
        tax_currency != currency && amount.attribute("currencyID") == Some(&tax_currency)
    });
    let mut amount = |name, field: &str| values.decimal(in_currency(name), field);
    Totals {
        line_net_amount: amount("LineTotalAmount", "totals.line_net_amount"),
        allowance_amount: amount("AllowanceTotalAmount", "totals.allowance_amount"),
        charge_amount: amount("ChargeTotalAmount", "totals.charge_amount"),
        net_amount: amount("TaxBasisTotalAmount", "totals.net_amount"),
        gross_amount: amount("GrandTotalAmount", "totals.gross_amount"),
        prepaid_amount: amount("TotalPrepaidAmount", "totals.prepaid_amount"),
        rounding_amount: amount("RoundingAmount", "totals.rounding_amount"),
        payable_amount: amount("DuePayableAmount", "totals.payable_amount"),
        tax_amount: amount("TaxTotalAmount", "totals.tax_amount"),
        tax_amount_in_tax_currency: values
            .decimal(in_tax_currency, "totals.tax_amount_in_tax_currency"),
    }
}

fn line(line: &Element<'_>, path: &str, values: &mut Values) -> Line {
    let field = |name: &str| format!("{path}.{name}");
    let nothing = Element::default();
    let part = |name| line.at(name).unwrap_or(&nothing);
    let document = part("AssociatedDocumentLineDocument");
    let product = part("SpecifiedTradeProduct");
    let agreement = part("SpecifiedLineTradeAgreement");
    let settlement = part("SpecifiedLineTradeSettlement");
    let quantity = line.at("SpecifiedLineTradeDelivery/BilledQuantity");
    let unit = quantity.and_then(|quantity| quantity.attribute("unitCode")).unwrap_or_default();
    let price = agreement.at("NetPriceProductTradePrice").unwrap_or(&nothing);
    let sum = settlement.at("SpecifiedTradeSettlementLineMonetarySummation/LineTotalAmount");
    Line {
        id: text(document.at("LineID")),
        note: text(document.at("IncludedNote/Content")),
        item_name: text(product.at("Name")),
        item_description: text(product.at("Description")),
        seller_item_id: text(product.at("SellerAssignedID")),
        buyer_item_id: text(product.at("BuyerAssignedID")),
        standard_item_id: product.at("GlobalID").map(identifier),
        order_line: text(agreement.at("BuyerOrderReferencedDocument/LineID")),
        quantity: values.decimal(quantity, &field("quantity")),
        unit: unit.to_owned(),
        price: values.decimal(price.at("ChargeAmount"), &field("price")),
        price_base_quantity: values
            .decimal(price.at("BasisQuantity"), &field("price_base_quantity")),
        allowances_charges: allowances_charges(settlement, &format!("{path}."), values),
        net_amount: values.decimal(sum, &field("net_amount")),
        tax: settlement
            .at("ApplicableTradeTax")
            .map(|tax| tax_category(tax, &field("tax"), values)),
        period_start: values.date_102(settlement.at(PERIOD_START), &field("period_start")),
        period_end: values.date_102(settlement.at(PERIOD_END), &field("period_end")),
        status: text(document.at("LineStatusReasonCode")),
        parent: text(document.at("ParentLineID")),
    }
}
