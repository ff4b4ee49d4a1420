//! Finds the files that a PDF attaches: in its name tree of embedded files, as associated files
//! (`/AF`) of the document, its pages and their annotations, and in file attachment annotations
//! (ISO 32000-1, 7.11.4 and 12.5.6.15; ISO 19005-3, 6.8).

use std::collections::HashSet;

use lopdf::{Dictionary, Document, Object, ObjectId, Stream};

use super::{INVOICE_NAMES, budget};
use crate::error::InvoiceError;

/// The maximum number of attachments.
const FILES_MAX: usize = 100;
/// The maximum number of visited name tree nodes, pages, annotations and list entries.
const STEPS_MAX: usize = 100_000;
/// The keys of an embedded file's streams.
const STREAM_KEYS: [&[u8]; 5] = [b"UF", b"F", b"DOS", b"Mac", b"Unix"];

/// An attached file.
pub(super) struct AttachedFile<'a> {
    pub(super) name: String,
    media_type: &'a [u8],
    /// Its streams, without duplicates.
    pub(super) streams: Vec<&'a Stream>,
}

impl AttachedFile<'_> {
    /// Whether it is XML by its name or its type.
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

/// All attached files, without duplicates.
///
/// # Errors
/// When there are too many attachments or objects.
pub(super) fn attached_files(document: &Document) -> Result<Vec<AttachedFile<'_>>, InvoiceError> {
    let mut walk = AttachmentWalk { document, steps: 0, seen: HashSet::new(), files: Vec::new() };
    let catalog = document.catalog().map_err(|error| {
        InvoiceError::document(format!("is a PDF that cannot be read: {error}"))
    })?;
    walk.visit_associated(catalog)?;
    if let Some(root) = walk
        .dictionary(catalog, b"Names")
        .and_then(|visit_names| visit_names.get(b"EmbeddedFiles").ok())
    {
        walk.visit_names(root)?;
    }
    for visit_page in document.page_iter() {
        walk.count_step()?;
        if let Ok(visit_page) = document.get_dictionary(visit_page) {
            walk.visit_page(visit_page)?;
        }
    }
    Ok(walk.files)
}

struct AttachmentWalk<'a> {
    document: &'a Document,
    steps: usize,
    /// The visited objects.
    seen: HashSet<ObjectId>,
    files: Vec<AttachedFile<'a>>,
}

impl<'a> AttachmentWalk<'a> {
    fn count_step(&mut self) -> Result<(), InvoiceError> {
        budget::check_time();
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(InvoiceError::document(format!(
                "is a PDF with more than {STEPS_MAX} pages, annotations and names"
            )));
        }
        Ok(())
    }

    /// Whether an object is visited for the first time. A direct object occurs only once.
    fn is_new(&mut self, object: &Object) -> bool {
        object.as_reference().map_or(true, |id| self.seen.insert(id))
    }

    /// The object, with references resolved.
    fn resolve(&self, object: &'a Object) -> Option<&'a Object> {
        self.document.dereference(object).ok().map(|(_, object)| object)
    }

    fn dictionary(&self, holder: &'a Dictionary, key: &[u8]) -> Option<&'a Dictionary> {
        self.resolve(holder.get(key).ok()?)?.as_dict().ok()
    }

    fn array(&self, holder: &'a Dictionary, key: &[u8]) -> &'a [Object] {
        let array = holder.get(key).ok().and_then(|object| self.resolve(object)?.as_array().ok());
        array.map_or(&[], Vec::as_slice)
    }

    /// Visits the name tree.
    fn visit_names(&mut self, root: &'a Object) -> Result<(), InvoiceError> {
        let mut open = vec![root];
        while let Some(node) = open.pop() {
            self.count_step()?;
            if !self.is_new(node) {
                continue;
            }
            let Some(node) = self.resolve(node).and_then(|node| node.as_dict().ok()) else {
                continue;
            };
            for pair in self.array(node, b"Names").chunks(2) {
                self.count_step()?;
                if let [_, visit_file] = pair {
                    self.visit_file(visit_file)?;
                }
            }
            open.extend(self.array(node, b"Kids"));
        }
        Ok(())
    }

    /// Visits the associated files of a dictionary: a list, or one file.
    fn visit_associated(&mut self, holder: &'a Dictionary) -> Result<(), InvoiceError> {
        let Ok(files) = holder.get(b"AF") else { return Ok(()) };
        match self.resolve(files) {
            Some(Object::Array(files)) => {
                for visit_file in files {
                    self.count_step()?;
                    self.visit_file(visit_file)?;
                }
                Ok(())
            }
            _ => self.visit_file(files),
        }
    }

    fn visit_page(&mut self, visit_page: &'a Dictionary) -> Result<(), InvoiceError> {
        self.visit_associated(visit_page)?;
        for annotation in self.array(visit_page, b"Annots") {
            self.count_step()?;
            if !self.is_new(annotation) {
                continue;
            }
            let Some(annotation) = self.resolve(annotation).and_then(|found| found.as_dict().ok())
            else {
                continue;
            };
            self.visit_associated(annotation)?;
            let kind =
                annotation.get(b"Subtype").ok().and_then(|kind| self.resolve(kind)?.as_name().ok());
            if kind == Some(b"FileAttachment")
                && let Ok(visit_file) = annotation.get(b"FS")
            {
                self.visit_file(visit_file)?;
            }
        }
        Ok(())
    }

    /// Visits a file specification. One without an embedded file refers to an external file, and
    /// attaches nothing.
    fn visit_file(&mut self, specification: &'a Object) -> Result<(), InvoiceError> {
        if !self.is_new(specification) {
            return Ok(());
        }
        let Some(specification) =
            self.resolve(specification).and_then(|found| found.as_dict().ok())
        else {
            return Ok(());
        };
        let Some(embedded) = self.dictionary(specification, b"EF") else { return Ok(()) };
        let name = [b"UF".as_slice(), b"F"].iter().find_map(|key| {
            lopdf::decode_text_string(self.resolve(specification.get(key).ok()?)?).ok()
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
        // A second specification of the same file adds nothing.
        let is_known = |stream: &&Stream| {
            self.files
                .iter()
                .flat_map(|visit_file| &visit_file.streams)
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
            media_type.and_then(|kind| self.resolve(kind)?.as_name().ok()).unwrap_or_default();
        self.files.push(AttachedFile { name: name.unwrap_or_default(), media_type, streams });
        Ok(())
    }
}
