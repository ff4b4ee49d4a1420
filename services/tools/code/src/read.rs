//! Reading one file.

use drawbridge_sdk::Cancellation;

use crate::{
    error::CodeError,
    links::SecretLinks,
    tree::{Tree, TreePath},
};

/// The contents of a text file. Hidden and ignored files can be read by name; Git's folder and
/// files that may hold keys cannot.
///
/// # Errors
/// When the file does not exist, the path leads through a symbolic link, or it is not a regular
/// text file within the size limit.
pub(crate) fn read(
    tree: &Tree,
    path: &TreePath,
    cancellation: &Cancellation,
) -> Result<Vec<u8>, CodeError> {
    tree.check_canonical_name(path, false)?;
    let mut contents = Vec::new();
    let metadata = tree.read_into(path.as_path(), &mut contents)?;
    if SecretLinks::new(tree, cancellation).contain(&metadata)? {
        return Err(CodeError::Secret);
    }
    Ok(contents)
}
