//! `drawbridge up`: what it says is so, and what it starts ends with it.
