//! The metrics of this service.

drawbridge_sdk::metric_table! {
    /// Files that were searched.
    FILES_SEARCHED: Counter<Count> = "code_files_searched_total" [];
    /// How long searches took.
    SEARCH_DURATION: Histogram<Seconds> = "code_search_duration_seconds" [];
}
