# shellcheck shell=bash
set -o pipefail
cd @BASE_DIRECTORY@/@key@ 2>/dev/null && [ -f log ] || exit @NO_LOG@
LC_ALL=C timeout -k 1 @seconds@ grep -aE -e @pattern@ log | LC_ALL=C awk -v repeated=@repeated@ '
index($0, repeated) { held = $0; next } held != "" { print held; held = "" } { print } END { if (held != "") print held }
' | tail -c @lines@
