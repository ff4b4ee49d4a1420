//! Listing files.

use drawbridge_proto::code::v1::{File, ListFilesResponse};
use drawbridge_sdk::Cancellation;

use crate::{
    error::CodeError,
    query::{ListQuery, RESPONSE_BYTES_MAX},
    tree::Tree,
    walk::{Entry, Walk},
};

/// Lists the regular files of a scope.
///
/// # Errors
/// When the call is cancelled or past its deadline.
pub(crate) fn list(
    tree: &Tree,
    query: &ListQuery,
    cancellation: &Cancellation,
) -> Result<ListFilesResponse, CodeError> {
    let mut response = ListFilesResponse::default();
    let mut response_bytes = 0;
    for entry in Walk::new(tree, &query.scope, cancellation) {
        let Entry::File(path) = entry? else { continue };
        // It may have been removed or replaced since the walk read its folder.
        let Some(metadata) =
            tree.metadata(path.as_ref()).ok().filter(|metadata| metadata.is_file())
        else {
            continue;
        };
        response_bytes += path.len() + 16;
        if response.files.len() == query.max_results || response_bytes > RESPONSE_BYTES_MAX {
            response.truncated = true;
            break;
        }
        response.files.push(File { path, size: metadata.len() });
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use drawbridge_proto::code::v1::ListFilesRequest;

    use super::*;
    use crate::sample::{LIMITS, Sample, no_cancellation};

    fn list_first(sample: &Sample, max_results: u32) -> ListFilesResponse {
        let tree = sample.tree();
        let request = ListFilesRequest { max_results: Some(max_results), ..Default::default() };
        list(&tree, &ListQuery::parse(&tree, &request, &LIMITS).unwrap(), &no_cancellation())
            .unwrap()
    }

    #[test]
    fn files_are_listed_with_their_sizes() {
        let sample = Sample::of(&[("b/c.rs", "12345"), ("a.rs", "")]);
        sample.link("out.txt", "../outside/secret.txt");
        sample.fifo("fifo");
        sample.write("binary", b"\0");
        let response = list_first(&sample, 10);
        let files: Vec<_> =
            response.files.iter().map(|file| (file.path.as_str(), file.size)).collect();
        assert_eq!(files, [("a.rs", 0), ("b/c.rs", 5), ("binary", 1)]);
    }

    #[test]
    fn a_listing_is_truncated_only_when_there_are_more_files() {
        let sample = Sample::of(&[("a", ""), ("b", ""), ("c", "")]);
        for (max_results, listed, truncated) in [(2, 2, true), (3, 3, false), (4, 3, false)] {
            let response = list_first(&sample, max_results);
            assert_eq!((response.files.len(), response.truncated), (listed, truncated));
        }
    }
}
