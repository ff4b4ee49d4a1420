"""Writes a Factur-X PDF of the CII invoice on standard input to standard output, with the package factur-x."""

import io
import sys

from facturx import generate_from_binary
from pypdf import PdfWriter

page = PdfWriter()
page.add_blank_page(width=595, height=842)
blank = io.BytesIO()
page.write(blank)
sys.stdout.buffer.write(generate_from_binary(blank.getvalue(), sys.stdin.buffer.read(), check_xsd=True, lang="en"))
