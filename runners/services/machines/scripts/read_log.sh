# shellcheck shell=bash
base=@BASE_DIRECTORY@
[ -d "${base%/*}" ] || { printf '%s is missing.\n%s\n' "${base%/*}" @UNUSABLE@ >&2; exit @NO_RUN_DIRECTORY@; }
cd "$base/"@key@ 2>/dev/null && [ -f log ] && size=$(stat -L -c %s log 2>/dev/null) || exit @NO_LOG@
offset=@offset@
[ "$offset" -ge 0 ] || offset=$((size + offset)); [ "$offset" -ge 0 ] || offset=0
printf '%s %s\n' "$size" "$offset"
[ "$offset" -ge "$size" ] || tail -c "+$((offset + 1))" log | head -c @limit@
