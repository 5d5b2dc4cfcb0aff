# shellcheck shell=bash
. open_log.sh
offset=@offset@
[ "$offset" -ge 0 ] || offset=$((size + offset)); [ "$offset" -ge 0 ] || offset=0
printf '%s %s\n' "$size" "$offset"
[ "$offset" -ge "$size" ] || tail -c "+$((offset + 1))" log | head -c @limit@
