#!/usr/bin/env bash
# Refuses words that are not the field's own, in code, comments and docs: metaphors of houses, markets and
# conversations. Usage: tests/words.sh [PATH…]
set -euo pipefail

words='doors?|rooms?|lanes?|strangers?|misfits?|departures?|told|hears?|heard|kept|standing|whoever|whomever'
words+='|nobody|somebody|anybody|everybody'
phrases='\b(is|are|was|were) none\b|\b(take|takes|took|taking|taken|wait|waits|its|their|whose|by) turns?\b'
phrases+='|\bmake(s)? way\b|\blets? in\b|\bas ever\b|\bthe body did not come\b'
# Words within snake_case and CamelCase names too.
pattern="(?<![A-Za-z])($words)(?![a-z])|(?<=[a-z0-9])(?-i:Doors?|Rooms?|Lanes?|Strangers?|Misfits?|Departures?|Told|Heard|Kept|Standing|Nobody)(?![a-z])|$phrases"

if found=$(git grep --untracked -nIiP "$pattern" -- "${@:-.}" ':!tests/words.sh' ':!*.lock' ':!*/data/*' ':!*.xml' ':!*.json' ':!*.snap'); then
    echo "$found"
    echo "these are not the field's words: write queue, permit, cached, notify, error chain, no caller, …"
    exit 1
fi
