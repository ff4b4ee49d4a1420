//! Memory of an edge under floods.
