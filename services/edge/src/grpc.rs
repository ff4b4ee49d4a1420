//! Tool services as the edge sees them: how they are called, and the JSON Schema of their messages.

pub(crate) mod comments;
pub(crate) mod schema;
pub(crate) mod upstream;
#[cfg(test)]
pub(crate) use self::schema::properties::generate;
