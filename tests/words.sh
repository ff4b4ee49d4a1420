#!/usr/bin/env bash
# Rejects words that are not terms of the field, in code, comments and docs: metaphors of houses,
# markets and conversations. Rooms are allowed: the example service books meeting rooms.
# Usage: tests/words.sh [PATH…]
set -euo pipefail

words='doors?|lanes?|strangers?|misfits?|departures?|told|hears?|heard|kept|standing|whoever|whomever'
words+='|nobody|somebody|anybody|everybody'
phrases='\b(is|are|was|were) (?-i:none)\b|\b(take|takes|took|taking|taken|wait|waits|its|their|whose|by) turns?\b'
phrases+='|\bmake(s)? way\b|\blets? in\b|\bas ever\b|\bthe body did not come\b'
# Words within snake_case and CamelCase names too.
camel='Doors?|Lanes?|Strangers?|Misfits?|Departures?|Told|Heard|Kept|Standing|Nobody'
pattern="(?<![A-Za-z])($words)(?![a-z])|(?<=[a-z0-9])(?-i:$camel)(?![a-z])|$phrases"

# Migrations cannot change: databases store their checksums. The changelog names what was renamed.
# JSON, XML and snapshots are data.
excluded=(':!tests/words.sh' ':!proto/proto/buf/*' ':!CHANGELOG.md' ':!*.lock' ':!*/data/*' ':!*/migrations/*' ':!*.xml' ':!*.json' ':!*.snap')
if found=$(git grep --untracked -nIiP "$pattern" -- "${@:-.}" "${excluded[@]}"); then
    echo "$found"
    echo "these are not terms of the field (queue, permit, cached, notify, error chain, caller …)"
    exit 1
fi
