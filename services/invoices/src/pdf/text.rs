//! The text that a PDF shows, in lines as a person reads them.
//!
//! Where each piece of text stands on its page is followed through the operators of the page, and pieces that stand at one
//! height are one line, from left to right. Text within forms and annotations is left out, and so is what is turned.
//!
//! Such files come from anywhere. What an attacker could make large is bounded: the file, what loading it may cost
//! ([`budget`]), its pages, and what is read of each. One is read at a time, and a panic is an error.

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
/// How much the content, or one font's mapping to text, of a page may hold, in bytes.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
const FONTS_MAX: usize = 64;
/// Pieces of text on a page.
const PIECES_MAX: usize = 20_000;
const LINES_MAX: usize = 5_000;
/// Saved states of a page within one another.
const SAVED_MAX: usize = 100;

/// Pieces of text whose heights differ by no more than this part of their size stand on one line.
const SAME_LINE: f64 = 0.4;
/// Gaps of this part of the size are spaces, and of that one separate columns.
const SPACE_GAP: f64 = 0.2;
const COLUMN_GAP: f64 = 1.5;
/// The width of a character that its font does not tell, as a part of the size.
const USUAL_WIDTH: f64 = 0.5;

/// Between the columns of a line.
pub(crate) const COLUMN: char = '\t';

/// Operators of a page between two checks of the time.
const OPERATORS_PER_CHECK: usize = 64;

/// What `found` makes of the lines of a PDF, page by page, from top to bottom. Columns are separated by
/// [`COLUMN`].
///
/// # Errors
/// When it is encrypted, cannot be read, or holds more than an invoice does; when nobody waits any more; and
/// those of `found`.
pub(crate) fn read<T>(
    pdf: &[u8],
    cancellation: &Cancellation,
    found: impl FnOnce(Vec<String>) -> Result<T, InvoiceError>,
) -> Result<T, InvoiceError> {
    if pdf.len() > FILE_BYTES_MAX {
        return Err(refused(&format!(
            "without an attached invoice of more than {FILE_BYTES_MAX} bytes"
        )));
    }
    budget::within(pdf, cancellation, |options| found(lines(pdf, options)?))
}

fn refused(what: &str) -> InvoiceError {
    InvoiceError::document(format!("is a PDF {what}"))
}

fn lines(pdf: &[u8], options: LoadOptions) -> Result<Vec<String>, InvoiceError> {
    let document = load::load(pdf, options)?;
    let pages = document.get_pages();
    if pages.len() > PAGES_MAX {
        return Err(refused(&format!("with more than {PAGES_MAX} pages and no attached invoice")));
    }
    let mut lines = Vec::new();
    for page in pages.into_values() {
        budget::check_time();
        let content = document
            .get_page_content_with_limit(page, PAGE_BYTES_MAX)
            .map_err(|error| refused(&format!("that cannot be read: {error}")))?;
        let Ok(content) = Content::decode(&content) else { continue };
        let fonts = fonts(&document, page);
        let mut pen = Pen::default();
        for (number, operation) in content.operations.iter().enumerate() {
            if number.is_multiple_of(OPERATORS_PER_CHECK) {
                budget::check_time();
            }
            pen.follow(operation, &fonts);
            if pen.pieces.len() > PIECES_MAX {
                return Err(refused(&format!(
                    "with more than {PIECES_MAX} pieces of text on a page"
                )));
            }
        }
        lines.extend(pen.lines());
        if lines.len() > LINES_MAX {
            return Err(refused(&format!("with more than {LINES_MAX} lines of text")));
        }
    }
    Ok(lines)
}

/// A font of a page.
struct Font<'a> {
    encoding: Encoding<'a>,
    first: i64,
    /// Of simple fonts, in thousandths of the size.
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
    /// How wide a text is, as a part of the size.
    fn width(&self, bytes: &[u8]) -> f64 {
        let of = |byte: u8| {
            let index = usize::try_from(i64::from(byte) - self.first).ok();
            index
                .and_then(|index| self.widths.get(index))
                .map_or(USUAL_WIDTH, |width| width / 1000.0)
        };
        if self.bytes_of_character == 1 {
            bytes.iter().map(|byte| of(*byte)).sum()
        } else {
            USUAL_WIDTH * (bytes.len() / 2) as f64
        }
    }
}

/// A piece of text and where it stands, in units of the page.
struct Piece {
    text: String,
    x: f64,
    y: f64,
    end: f64,
    size: f64,
}

/// A position and a scale. What is turned is not followed.
#[derive(Clone, Copy)]
struct Place {
    x: f64,
    y: f64,
    scale: f64,
}

impl Default for Place {
    fn default() -> Self {
        Self { x: 0.0, y: 0.0, scale: 1.0 }
    }
}

/// What the operators of a page have set so far.
#[derive(Default)]
struct Pen {
    page: Place,
    saved: Vec<Place>,
    line: Place,
    /// How far the line is written, in units of text.
    written: f64,
    font: Vec<u8>,
    size: f64,
    leading: f64,
    pieces: Vec<Piece>,
}

impl Pen {
    fn follow(&mut self, operation: &Operation, fonts: &BTreeMap<Vec<u8>, Font<'_>>) {
        let operands = &operation.operands;
        let at = |index: usize| operands.get(index).and_then(number).unwrap_or_default();
        match operation.operator.as_str() {
            "q" if self.saved.len() < SAVED_MAX => self.saved.push(self.page),
            "Q" => self.page = self.saved.pop().unwrap_or_default(),
            "cm" => {
                let Place { x, y, scale } = self.page;
                self.page = Place {
                    x: x + at(4) * scale,
                    y: y + at(5) * scale,
                    scale: scale * size_of(at(0), at(1)),
                };
            }
            "BT" => self.to(Place::default()),
            "Tf" => {
                self.font = operands
                    .first()
                    .and_then(|name| name.as_name().ok())
                    .unwrap_or_default()
                    .to_vec();
                self.size = at(1);
            }
            "TL" => self.leading = at(0),
            "Tm" => self.to(Place { x: at(4), y: at(5), scale: size_of(at(0), at(1)) }),
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
                        Some(back) => self.written -= back / 1000.0 * self.size,
                        None => self.show(Some(item), fonts),
                    }
                }
            }
            _ => {}
        }
    }

    fn to(&mut self, place: Place) {
        self.line = place;
        self.written = 0.0;
    }

    fn move_by(&mut self, x: f64, y: f64) {
        let Place { scale, .. } = self.line;
        self.to(Place { x: self.line.x + x * scale, y: self.line.y + y * scale, scale });
    }

    fn show(&mut self, text: Option<&Object>, fonts: &BTreeMap<Vec<u8>, Font<'_>>) {
        let Some(bytes) = text.and_then(|text| text.as_str().ok()) else { return };
        let Some(font) = fonts.get(&self.font) else { return };
        let begin = self.written;
        self.written += font.width(bytes) * self.size;
        let Ok(text) = Document::decode_text(&font.encoding, bytes) else { return };
        let x = |written: f64| {
            self.page.x + (self.line.x + written * self.line.scale) * self.page.scale
        };
        let piece = Piece {
            text: text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect(),
            x: x(begin),
            y: self.page.y + self.line.y * self.page.scale,
            end: x(self.written),
            size: (self.size * self.line.scale * self.page.scale).abs().max(1.0),
        };
        if [piece.x, piece.y, piece.end].iter().all(|at| at.is_finite())
            && !piece.text.trim().is_empty()
        {
            self.pieces.push(piece);
        }
    }

    /// The pieces in the order in which they are read.
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
        let join = |line| {
            budget::check_time();
            join(line)
        };
        lines.into_iter().map(join).collect()
    }
}

fn join(mut pieces: Vec<Piece>) -> String {
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

/// How much a matrix enlarges, by its first row.
fn size_of(a: f64, b: f64) -> f64 {
    a.hypot(b)
}
