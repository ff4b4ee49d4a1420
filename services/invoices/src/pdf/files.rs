//! The files that a PDF attaches: in its name tree of embedded files, as associated files (`/AF`)
//! of the document, its pages and their annotations, and in annotations that are file attachments
//! (ISO 32000-1, 7.11.4 and 12.5.6.15; ISO 19005-3, 6.8).

use std::collections::HashSet;

use lopdf::{Dictionary, Document, Object, ObjectId, Stream};

use super::{INVOICE_NAMES, budget};
use crate::error::InvoiceError;

/// Attachments of a PDF.
const FILES_MAX: usize = 100;
/// Nodes of the name tree, pages, annotations and entries of their lists that are looked at.
const STEPS_MAX: usize = 100_000;
/// The keys of an embedded file's streams.
const STREAM_KEYS: [&[u8]; 5] = [b"UF", b"F", b"DOS", b"Mac", b"Unix"];

/// A file that is attached.
pub(super) struct File<'a> {
    pub(super) name: String,
    media_type: &'a [u8],
    /// What it holds, each stream once.
    pub(super) streams: Vec<&'a Stream>,
}

impl File<'_> {
    /// Whether its name or its type says that it is XML.
    pub(super) fn is_xml(&self) -> bool {
        let media_type = self.media_type.to_ascii_lowercase();
        self.name.to_ascii_lowercase().ends_with(".xml")
            || media_type.ends_with(b"/xml")
            || media_type.ends_with(b"+xml")
    }

    pub(super) fn is_invoice_by_name(&self) -> bool {
        INVOICE_NAMES.contains(&self.name.to_ascii_lowercase().as_str())
    }
}

/// All of them, each once.
///
/// # Errors
/// When there are more than an invoice has.
pub(super) fn of(document: &Document) -> Result<Vec<File<'_>>, InvoiceError> {
    let mut walk = Walk { document, steps: 0, seen: HashSet::new(), files: Vec::new() };
    let catalog = document.catalog().map_err(|error| {
        InvoiceError::document(format!("is a PDF that cannot be read: {error}"))
    })?;
    walk.associated(catalog)?;
    if let Some(root) =
        walk.dictionary(catalog, b"Names").and_then(|names| names.get(b"EmbeddedFiles").ok())
    {
        walk.names(root)?;
    }
    for page in document.page_iter() {
        walk.step()?;
        if let Ok(page) = document.get_dictionary(page) {
            walk.page(page)?;
        }
    }
    Ok(walk.files)
}

struct Walk<'a> {
    document: &'a Document,
    steps: usize,
    /// Objects that were visited, so that none is twice.
    seen: HashSet<ObjectId>,
    files: Vec<File<'a>>,
}

impl<'a> Walk<'a> {
    fn step(&mut self) -> Result<(), InvoiceError> {
        budget::check_time();
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(InvoiceError::document(format!(
                "is a PDF with more than {STEPS_MAX} pages, annotations and names"
            )));
        }
        Ok(())
    }

    /// Whether an object is seen for the first time. One that is not indirect has but one place.
    fn is_new(&mut self, object: &Object) -> bool {
        object.as_reference().map_or(true, |id| self.seen.insert(id))
    }

    /// What an object is, through its references.
    fn resolved(&self, object: &'a Object) -> Option<&'a Object> {
        self.document.dereference(object).ok().map(|(_, object)| object)
    }

    fn dictionary(&self, holder: &'a Dictionary, key: &[u8]) -> Option<&'a Dictionary> {
        self.resolved(holder.get(key).ok()?)?.as_dict().ok()
    }

    fn array(&self, holder: &'a Dictionary, key: &[u8]) -> &'a [Object] {
        let array = holder.get(key).ok().and_then(|object| self.resolved(object)?.as_array().ok());
        array.map_or(&[], Vec::as_slice)
    }

    /// The name tree.
    fn names(&mut self, root: &'a Object) -> Result<(), InvoiceError> {
        let mut open = vec![root];
        while let Some(node) = open.pop() {
            self.step()?;
            if !self.is_new(node) {
                continue;
            }
            let Some(node) = self.resolved(node).and_then(|node| node.as_dict().ok()) else {
                continue;
            };
            for pair in self.array(node, b"Names").chunks(2) {
                self.step()?;
                if let [_, file] = pair {
                    self.file(file)?;
                }
            }
            open.extend(self.array(node, b"Kids"));
        }
        Ok(())
    }

    /// The files that belong to a dictionary: a list of them, or one.
    fn associated(&mut self, holder: &'a Dictionary) -> Result<(), InvoiceError> {
        let Ok(files) = holder.get(b"AF") else { return Ok(()) };
        match self.resolved(files) {
            Some(Object::Array(files)) => {
                for file in files {
                    self.step()?;
                    self.file(file)?;
                }
                Ok(())
            }
            _ => self.file(files),
        }
    }

    fn page(&mut self, page: &'a Dictionary) -> Result<(), InvoiceError> {
        self.associated(page)?;
        for annotation in self.array(page, b"Annots") {
            self.step()?;
            if !self.is_new(annotation) {
                continue;
            }
            let Some(annotation) = self.resolved(annotation).and_then(|found| found.as_dict().ok())
            else {
                continue;
            };
            self.associated(annotation)?;
            let kind = annotation
                .get(b"Subtype")
                .ok()
                .and_then(|kind| self.resolved(kind)?.as_name().ok());
            if kind == Some(b"FileAttachment")
                && let Ok(file) = annotation.get(b"FS")
            {
                self.file(file)?;
            }
        }
        Ok(())
    }

    /// A file specification. One without an embedded file names a file elsewhere, and attaches
    /// nothing.
    fn file(&mut self, specification: &'a Object) -> Result<(), InvoiceError> {
        if !self.is_new(specification) {
            return Ok(());
        }
        let Some(specification) =
            self.resolved(specification).and_then(|found| found.as_dict().ok())
        else {
            return Ok(());
        };
        let Some(embedded) = self.dictionary(specification, b"EF") else { return Ok(()) };
        let name = [b"UF".as_slice(), b"F"].iter().find_map(|key| {
            lopdf::decode_text_string(self.resolved(specification.get(key).ok()?)?).ok()
        });
        let (mut streams, mut ids) = (Vec::new(), HashSet::new());
        for key in STREAM_KEYS {
            let Ok(object) = embedded.get(key) else { continue };
            let Ok((id, found)) = self.document.dereference(object) else { continue };
            if let Ok(stream) = found.as_stream()
                && ids.insert(id)
            {
                streams.push(stream);
            }
        }
        // A second specification of the same file attaches nothing more.
        let is_known = |stream: &&Stream| {
            self.files
                .iter()
                .flat_map(|file| &file.streams)
                .any(|known| std::ptr::eq(*known, *stream))
        };
        if !streams.is_empty() && streams.iter().all(is_known) {
            return Ok(());
        }
        if self.files.len() == FILES_MAX {
            return Err(InvoiceError::document(format!(
                "is a PDF with more than {FILES_MAX} attachments"
            )));
        }
        let media_type = streams.first().and_then(|stream| stream.dict.get(b"Subtype").ok());
        let media_type =
            media_type.and_then(|kind| self.resolved(kind)?.as_name().ok()).unwrap_or_default();
        self.files.push(File { name: name.unwrap_or_default(), media_type, streams });
        Ok(())
    }
}
