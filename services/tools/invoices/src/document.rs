/// A document as received.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}
