//! Checkpoints in what a receiver outside of the mesh has stored.

use std::{io, path::PathBuf};

use super::{PlacedAnchor, place};
use crate::{
    checkpoint::Checkpoint,
    event::{Anchor, CheckpointRecord, Event, Record},
    lines::Lines,
};

/// The checkpoints in files of lines, as a sink has sent them. Other lines do not matter: a receiver
/// may have only some, in any order.
pub(super) fn checkpoints_in(files: &[PathBuf]) -> io::Result<Vec<PlacedAnchor>> {
    let mut found = Vec::new();
    for path in files {
        for line in Lines::open(path)? {
            let line = line?;
            let Ok(record) = serde_json::from_slice::<Record>(&line.bytes) else { continue };
            let Event::Checkpoint(CheckpointRecord { size, key, note }) = record.event else {
                continue;
            };
            let Some(checkpoint) = Checkpoint::peek(&note) else { continue };
            let Checkpoint { origin, root, .. } = checkpoint;
            let root = root.to_string();
            found.push(PlacedAnchor {
                log: path.display().to_string(),
                place: place(path, line.number),
                time: record.time,
                anchor: Anchor { origin, size, root, key, note, ..Anchor::default() },
            });
        }
    }
    Ok(found)
}
