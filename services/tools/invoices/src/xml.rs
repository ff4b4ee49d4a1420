//! Parses the elements, attributes and text of possibly hostile XML documents.
//!
//! Document types are rejected, so there are no entities and no external references. Everything
//! that an attacker could make large is bounded: the number of elements, their depth, and the size
//! of a tag, whose attributes are compared pairwise. The reader itself bounds the namespaces in
//! scope.

use std::borrow::Cow;

use drawbridge_sdk::Cancellation;
use quick_xml::{
    NsReader, XmlVersion,
    escape::resolve_predefined_entity,
    events::{BytesRef, BytesStart, Event},
    name::{NamespaceResolver, ResolveResult},
};

use crate::error::InvoiceError;

mod encoding;
pub(crate) use encoding::decode;

const ELEMENTS_MAX: usize = 300_000;
const DEPTH_MAX: usize = 32;
const TAG_BYTES_MAX: usize = 4096;
/// Events between two cancellation checks.
const EVENTS_PER_CHECK: usize = 256;

/// The vocabulary of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Vocabulary {
    Ubl,
    Cii,
    /// The Standard Business Document of UN/CEFACT, in which networks such as Peppol send an
    /// invoice.
    Envelope,
    /// Extensions, signatures and others, which are ignored.
    #[default]
    Other,
}

impl Vocabulary {
    fn of(namespace: &str) -> Self {
        if namespace == "http://www.unece.org/cefact/namespaces/StandardBusinessDocumentHeader" {
            return Self::Envelope;
        }
        let ubl = namespace.strip_prefix("urn:oasis:names:specification:ubl:schema:xsd:");
        let cii = namespace.strip_prefix("urn:un:unece:uncefact:data:standard:");
        match (ubl, cii) {
            (
                Some(
                    "Invoice-2"
                    | "CreditNote-2"
                    | "CommonAggregateComponents-2"
                    | "CommonBasicComponents-2",
                ),
                _,
            ) => Self::Ubl,
            (
                _,
                Some(
                    "CrossIndustryInvoice:100"
                    | "ReusableAggregateBusinessInformationEntity:100"
                    | "UnqualifiedDataType:100"
                    | "QualifiedDataType:100",
                ),
            ) => Self::Cii,
            _ => Self::Other,
        }
    }
}

/// An element, without comments and processing instructions.
#[derive(Debug, Default)]
pub(crate) struct Element<'a> {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) name: String,
    attributes: Vec<(String, String)>,
    text: Cow<'a, str>,
    children: Vec<Element<'a>>,
}

impl<'a> Element<'a> {
    /// Whether it is the root of an invoice or a credit note.
    pub(crate) fn is_invoice(&self) -> bool {
        match self.vocabulary {
            Vocabulary::Ubl => matches!(self.name.as_str(), "Invoice" | "CreditNote"),
            Vocabulary::Cii => self.name == "CrossIndustryInvoice",
            Vocabulary::Envelope | Vocabulary::Other => false,
        }
    }

    /// The root of the invoice or credit note: this element, or the single document of an envelope.
    /// None: there is no invoice.
    ///
    /// # Errors
    /// When an envelope contains no invoice, or several.
    pub(crate) fn invoice(&self) -> Result<Option<&Element<'a>>, InvoiceError> {
        if self.vocabulary != Vocabulary::Envelope {
            return Ok(Some(self).filter(|root| root.is_invoice()));
        }
        let mut invoices = self.children.iter().filter(|child| child.is_invoice());
        match (invoices.next(), invoices.next()) {
            (Some(invoice), None) => Ok(Some(invoice)),
            (Some(_), Some(_)) => {
                Err(InvoiceError::document("is an envelope (SBDH) of several invoices"))
            }
            (None, _) => Err(InvoiceError::document(
                "is an envelope (SBDH) without an invoice or credit note of UBL 2.1 or UN/CEFACT \
                 CII",
            )),
        }
    }

    /// Its own text, trimmed.
    pub(crate) fn text(&self) -> &str {
        self.text.trim_matches([' ', '\t', '\r', '\n'])
    }

    /// The attribute with this name, without a prefix.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The children with this name, in this element's vocabulary.
    pub(crate) fn all<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e Element<'a>> {
        self.children
            .iter()
            .filter(move |child| child.name == name && child.vocabulary == self.vocabulary)
    }

    /// The first element at a path such as `Party/PostalAddress`.
    pub(crate) fn at<'e>(&'e self, path: &'e str) -> Option<&'e Element<'a>> {
        path.split('/').try_fold(self, |element, name| element.all(name).next())
    }
}

/// Parses the text of a document, as returned by [`decode`].
///
/// # Errors
/// When it is not well-formed XML, has a document type, or exceeds a limit; and when the call is
/// cancelled.
pub(crate) fn parse<'a>(
    text: &'a str,
    cancellation: &Cancellation,
) -> Result<Element<'a>, InvoiceError> {
    let mut reader = NsReader::from_str(text);
    let mut tree = TreeBuilder::default();
    for number in 0_usize.. {
        if number.is_multiple_of(EVENTS_PER_CHECK) {
            cancellation.check()?;
        }
        let event = reader
            .read_event()
            .map_err(|error| xml_error(&error.to_string(), reader.error_position()))?;
        if matches!(event, Event::Eof) {
            break;
        }
        let position = reader.buffer_position();
        tree.handle(event, reader.resolver()).map_err(|problem| xml_error(&problem, position))?;
    }
    tree.root()
}

/// Whether XML 1.0 allows the character.
fn is_xml(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn xml_error(problem: &str, position: u64) -> InvoiceError {
    InvoiceError::document(format!(
        "is not valid or not supported XML, at byte {position}: {problem}"
    ))
}

/// Resolves a reference in text. Only XML's five predefined entities have names.
fn resolve_reference<'a>(reference: &BytesRef<'a>) -> Result<Cow<'a, str>, String> {
    match reference.resolve_char_ref() {
        Ok(Some(char)) if is_xml(char) => Ok(char.to_string().into()),
        Ok(None) => match resolve_predefined_entity(&reference.xml10_content()) {
            Some(text) => Ok(text.into()),
            None => Err("entities are not accepted".to_owned()),
        },
        _ => Err("an invalid character reference".to_owned()),
    }
}

/// Builds the tree: the open elements, root first, and finally the root.
#[derive(Debug, Default)]
struct TreeBuilder<'a> {
    open: Vec<Element<'a>>,
    root: Option<Element<'a>>,
    elements: usize,
}

impl<'a> TreeBuilder<'a> {
    fn handle(&mut self, event: Event<'a>, names: &NamespaceResolver) -> Result<(), String> {
        match event {
            Event::Start(start) => self.open(&start, names),
            Event::Empty(start) => {
                self.open(&start, names)?;
                self.close();
                Ok(())
            }
            Event::End(_) => {
                self.close();
                Ok(())
            }
            Event::Text(part) => self.text(part.xml10_content()),
            Event::CData(part) => self.text(part.xml10_content()),
            Event::GeneralRef(reference) => self.text(resolve_reference(&reference)?),
            Event::DocType(_) => Err("a document type (DTD) is not accepted".to_owned()),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) | Event::Eof => Ok(()),
        }
    }

    fn open(&mut self, start: &BytesStart<'_>, names: &NamespaceResolver) -> Result<(), String> {
        self.elements += 1;
        if self.root.is_some() {
            return Err("a second root element".to_owned());
        }
        if self.elements > ELEMENTS_MAX {
            return Err(format!("more than {ELEMENTS_MAX} elements"));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(format!("elements are nested deeper than {DEPTH_MAX}"));
        }
        if start.len() > TAG_BYTES_MAX {
            return Err(format!("a tag of more than {TAG_BYTES_MAX} bytes"));
        }
        let vocabulary = match names.resolve_element(start.name()).0 {
            ResolveResult::Bound(namespace) => Vocabulary::of(namespace.as_ref()),
            ResolveResult::Unbound => Vocabulary::Other,
            ResolveResult::Unknown(prefix) => {
                return Err(format!("the prefix `{prefix}` is not declared"));
            }
        };
        let mut attributes = Vec::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| error.to_string())?;
            let name = attribute.key.as_ref();
            if vocabulary != Vocabulary::Other && !name.contains(':') && name != "xmlns" {
                attributes.push((name.to_owned(), value.into_owned()));
            }
        }
        let name = start.local_name().as_ref().to_owned();
        self.open.push(Element { vocabulary, name, attributes, ..Element::default() });
        Ok(())
    }

    fn text(&mut self, part: Cow<'a, str>) -> Result<(), String> {
        let Some(element) = self.open.last_mut() else {
            let blank = part.trim().is_empty();
            return if blank { Ok(()) } else { Err("text outside the root element".to_owned()) };
        };
        if element.text.is_empty() {
            element.text = part;
        } else {
            element.text.to_mut().push_str(&part);
        }
        Ok(())
    }

    /// Closes the last element. The reader has checked that the names match.
    fn close(&mut self) {
        let Some(element) = self.open.pop() else { return };
        match self.open.last_mut() {
            Some(_) if element.vocabulary == Vocabulary::Other => {}
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
    }

    fn root(self) -> Result<Element<'a>, InvoiceError> {
        if !self.open.is_empty() {
            return Err(InvoiceError::document("ends before its elements do"));
        }
        self.root.ok_or_else(|| InvoiceError::document("has no root element"))
    }
}
