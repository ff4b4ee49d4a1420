//! Extracts the visible text of a PDF as lines.
//!
//! The position of each piece of text follows from the page's operators. Pieces at the same height
//! form a line, from left to right. Text in forms and annotations, and rotated text, is ignored.
//!
//! Files are untrusted. Everything that an attacker could make large is bounded: the file, the cost
//! of loading it ([`budget`]), its pages, and the text of each page. One file is read at a time,
//! and panics become errors.

use std::collections::BTreeMap;

use drawbridge_sdk::Cancellation;
use lopdf::{
    Dictionary, Document, Encoding, LoadOptions, Object,
    content::{Content, Operation},
};

use super::{budget, load};
use crate::error::InvoiceError;

const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
const PAGES_MAX: usize = 50;
/// The maximum size of a page's content, and of one font's mapping to text, in bytes.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
const FONTS_MAX: usize = 64;
/// The maximum number of text pieces on a page.
const PIECES_MAX: usize = 20_000;
const LINES_MAX: usize = 5_000;
/// The maximum nesting of saved states on a page.
const SAVED_STATES_MAX: usize = 100;

/// Pieces whose heights differ by at most this fraction of their size are on one line.
const SAME_LINE: f64 = 0.4;
/// Gaps above these fractions of the size are spaces, or separate columns.
const SPACE_GAP: f64 = 0.2;
const COLUMN_GAP: f64 = 1.5;
/// The width of a character whose font has no width for it, as a fraction of the size.
const DEFAULT_WIDTH: f64 = 0.5;

/// The separator of columns in a line.
pub(crate) const COLUMN: char = '\t';

/// Operators of a page between two cancellation checks.
const OPERATORS_PER_CHECK: usize = 64;

/// Parses the lines of a PDF with `parse`: page by page, from top to bottom, with columns separated
/// by [`COLUMN`].
///
/// # Errors
/// When it is encrypted or unreadable, or exceeds the budget; when the call is cancelled; and those
/// of `parse`.
pub(crate) fn read<T>(
    pdf: &[u8],
    cancellation: &Cancellation,
    parse: impl FnOnce(Vec<String>) -> Result<T, InvoiceError>,
) -> Result<T, InvoiceError> {
    if pdf.len() > FILE_BYTES_MAX {
        return Err(pdf_error(&format!(
            "without an attached invoice of more than {FILE_BYTES_MAX} bytes"
        )));
    }
    budget::with_budget(pdf, cancellation, |options| parse(lines(pdf, options)?))
}

fn pdf_error(what: &str) -> InvoiceError {
    InvoiceError::document(format!("is a PDF {what}"))
}

fn lines(pdf: &[u8], options: LoadOptions) -> Result<Vec<String>, InvoiceError> {
    let document = load::load(pdf, options)?;
    let pages = document.get_pages();
    if pages.len() > PAGES_MAX {
        return Err(pdf_error(&format!(
            "with more than {PAGES_MAX} pages and no attached invoice"
        )));
    }
    let mut lines = Vec::new();
    for page in pages.into_values() {
        budget::check_time();
        let content = document
            .get_page_content_with_limit(page, PAGE_BYTES_MAX)
            .map_err(|error| pdf_error(&format!("that cannot be read: {error}")))?;
        let Ok(content) = Content::decode(&content) else { continue };
        let fonts = fonts(&document, page);
        let mut cursor = TextCursor::default();
        for (number, operation) in content.operations.iter().enumerate() {
            if number.is_multiple_of(OPERATORS_PER_CHECK) {
                budget::check_time();
            }
            cursor.apply(operation, &fonts);
            if cursor.pieces.len() > PIECES_MAX {
                return Err(pdf_error(&format!(
                    "with more than {PIECES_MAX} pieces of text on a page"
                )));
            }
        }
        lines.extend(cursor.lines());
        if lines.len() > LINES_MAX {
            return Err(pdf_error(&format!("with more than {LINES_MAX} lines of text")));
        }
    }
    Ok(lines)
}

/// A font of a page.
struct Font<'a> {
    encoding: Encoding<'a>,
    first: i64,
    /// The widths of simple fonts, in thousandths of the size.
    widths: Vec<f64>,
    bytes_of_character: usize,
}

fn fonts(document: &Document, page: lopdf::ObjectId) -> BTreeMap<Vec<u8>, Font<'_>> {
    let fonts = document.get_page_fonts(page).unwrap_or_default();
    let font = |font: &'_ Dictionary| {
        let widths = font.get_deref(b"Widths", document).and_then(Object::as_array);
        let widths = widths
            .map(|widths| widths.iter().map(|width| number(width).unwrap_or(500.0)).collect());
        let composite =
            font.get(b"Subtype").and_then(Object::as_name).is_ok_and(|kind| kind == b"Type0");
        (
            font.get_deref(b"FirstChar", document).and_then(Object::as_i64).unwrap_or_default(),
            widths.unwrap_or_default(),
            if composite { 2 } else { 1 },
        )
    };
    let known = fonts.into_iter().take(FONTS_MAX).filter_map(|(name, dictionary)| {
        budget::check_time();
        let encoding = dictionary.get_font_encoding_with_limit(document, PAGE_BYTES_MAX).ok()?;
        let (first, widths, bytes_of_character) = font(dictionary);
        Some((name, Font { encoding, first, widths, bytes_of_character }))
    });
    known.collect()
}

impl Font<'_> {
    /// The width of a text, as a fraction of the size.
    fn width(&self, bytes: &[u8]) -> f64 {
        let width_of = |byte: u8| {
            let index = usize::try_from(i64::from(byte) - self.first).ok();
            index
                .and_then(|index| self.widths.get(index))
                .map_or(DEFAULT_WIDTH, |width| width / 1000.0)
        };
        if self.bytes_of_character == 1 {
            bytes.iter().map(|byte| width_of(*byte)).sum()
        } else {
            DEFAULT_WIDTH * (bytes.len() / 2) as f64
        }
    }
}

/// A piece of text with its position, in page units.
struct Piece {
    text: String,
    x: f64,
    y: f64,
    end: f64,
    size: f64,
}

/// A position and a scale. Rotation is ignored.
#[derive(Clone, Copy)]
struct TextPosition {
    x: f64,
    y: f64,
    scale: f64,
}

impl Default for TextPosition {
    fn default() -> Self {
        Self { x: 0.0, y: 0.0, scale: 1.0 }
    }
}

/// The text state that a page's operators have set.
#[derive(Default)]
struct TextCursor {
    page: TextPosition,
    saved: Vec<TextPosition>,
    line: TextPosition,
    /// The horizontal position in the line, in text units.
    advance: f64,
    font: Vec<u8>,
    size: f64,
    leading: f64,
    pieces: Vec<Piece>,
}

impl TextCursor {
    fn apply(&mut self, operation: &Operation, fonts: &BTreeMap<Vec<u8>, Font<'_>>) {
        let operands = &operation.operands;
        let at = |index: usize| operands.get(index).and_then(number).unwrap_or_default();
        match operation.operator.as_str() {
            "q" if self.saved.len() < SAVED_STATES_MAX => self.saved.push(self.page),
            "Q" => self.page = self.saved.pop().unwrap_or_default(),
            "cm" => {
                let TextPosition { x, y, scale } = self.page;
                self.page = TextPosition {
                    x: x + at(4) * scale,
                    y: y + at(5) * scale,
                    scale: scale * scale_of(at(0), at(1)),
                };
            }
            "BT" => self.set_line(TextPosition::default()),
            "Tf" => {
                self.font = operands
                    .first()
                    .and_then(|name| name.as_name().ok())
                    .unwrap_or_default()
                    .to_vec();
                self.size = at(1);
            }
            "TL" => self.leading = at(0),
            "Tm" => {
                self.set_line(TextPosition { x: at(4), y: at(5), scale: scale_of(at(0), at(1)) });
            }
            "Td" => self.move_by(at(0), at(1)),
            "TD" => {
                self.leading = -at(1);
                self.move_by(at(0), at(1));
            }
            "T*" => self.move_by(0.0, -self.leading),
            "Tj" => self.show(operands.first(), fonts),
            "'" => {
                self.move_by(0.0, -self.leading);
                self.show(operands.first(), fonts);
            }
            "\"" => {
                self.move_by(0.0, -self.leading);
                self.show(operands.get(2), fonts);
            }
            "TJ" => {
                for item in
                    operands.first().and_then(|items| items.as_array().ok()).into_iter().flatten()
                {
                    match number(item) {
                        Some(adjustment) => self.advance -= adjustment / 1000.0 * self.size,
                        None => self.show(Some(item), fonts),
                    }
                }
            }
            _ => {}
        }
    }

    fn set_line(&mut self, position: TextPosition) {
        self.line = position;
        self.advance = 0.0;
    }

    fn move_by(&mut self, x: f64, y: f64) {
        let TextPosition { scale, .. } = self.line;
        self.set_line(TextPosition {
            x: self.line.x + x * scale,
            y: self.line.y + y * scale,
            scale,
        });
    }

    fn show(&mut self, text: Option<&Object>, fonts: &BTreeMap<Vec<u8>, Font<'_>>) {
        let Some(bytes) = text.and_then(|text| text.as_str().ok()) else { return };
        let Some(font) = fonts.get(&self.font) else { return };
        let begin = self.advance;
        self.advance += font.width(bytes) * self.size;
        let Ok(text) = Document::decode_text(&font.encoding, bytes) else { return };
        let x = |advance: f64| {
            self.page.x + (self.line.x + advance * self.line.scale) * self.page.scale
        };
        let piece = Piece {
            text: text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect(),
            x: x(begin),
            y: self.page.y + self.line.y * self.page.scale,
            end: x(self.advance),
            size: (self.size * self.line.scale * self.page.scale).abs().max(1.0),
        };
        if [piece.x, piece.y, piece.end].iter().all(|at| at.is_finite())
            && !piece.text.trim().is_empty()
        {
            self.pieces.push(piece);
        }
    }

    /// The pieces joined to lines, in reading order.
    fn lines(mut self) -> Vec<String> {
        self.pieces.sort_by(|one, other| other.y.total_cmp(&one.y));
        let mut lines: Vec<Vec<Piece>> = Vec::new();
        for piece in self.pieces {
            match lines.last_mut() {
                Some(line)
                    if line
                        .first()
                        .is_some_and(|first| first.y - piece.y <= SAME_LINE * first.size) =>
                {
                    line.push(piece);
                }
                _ => lines.push(vec![piece]),
            }
        }
        let join_pieces = |line| {
            budget::check_time();
            join_pieces(line)
        };
        lines.into_iter().map(join_pieces).collect()
    }
}

fn join_pieces(mut pieces: Vec<Piece>) -> String {
    pieces.sort_by(|one, other| one.x.total_cmp(&other.x));
    let mut line = String::new();
    let mut end = f64::INFINITY;
    for piece in pieces {
        let gap = (piece.x - end) / piece.size;
        if gap > COLUMN_GAP {
            line.push(COLUMN);
        } else if gap > SPACE_GAP && !line.ends_with(' ') && !piece.text.starts_with(' ') {
            line.push(' ');
        }
        line.push_str(&piece.text);
        end = piece.end;
    }
    line.trim().to_owned()
}

fn number(object: &Object) -> Option<f64> {
    match object {
        Object::Integer(number) => Some(*number as f64),
        Object::Real(number) => Some(f64::from(*number)),
        _ => None,
    }
}

/// The scale of a matrix, from its first row.
fn scale_of(a: f64, b: f64) -> f64 {
    a.hypot(b)
}
