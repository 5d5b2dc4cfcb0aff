# shellcheck shell=bash
for file in @files@; do head -c 65536 -- "$file" 2>/dev/null; echo; done | awk '
function indent(line) { match(line, /^ */); return RLENGTH }
/^[ \t]*(#|$)/ { next }
indent($0) == 0 { inside = toupper($0) ~ /^["\047]?PLATFORMS["\047]?[ \t]*:[ \t]*(#.*)?\r?$/; level = -1; next }
!inside { next }
level < 0 { level = indent($0) }
indent($0) == level { name = $1; sub(/:.*/, "", name); gsub(/["\047]/, "", name); next }
toupper($1) ~ /^["\047]?TYPE["\047]?:$/ { gsub(/["\047\r]/, "", $2); print name, $2 }
' | head -n 200
