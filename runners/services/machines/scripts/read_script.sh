# shellcheck shell=bash disable=SC2154 # `root` is set by the included file
. experiments_root.sh
[ -d "$root/"@expid@ ] || exit @NO_EXPERIMENT@
# Not through links, so nothing outside of tmp/ is read.
[ ! -L "$root/"@expid@/tmp ] && cd "$root/"@expid@/tmp 2>/dev/null || exit @NO_LOG@
file=@name@
[ -f "$file" ] && [ ! -L "$file" ] && size=$(stat -c %s -- "$file" 2>/dev/null) && [ -r "$file" ] || exit @NO_LOG@
offset=@offset@
printf '%s %s\n' "$size" "$offset"
[ "$offset" -ge "$size" ] || tail -c "+$((offset + 1))" -- "$file" | head -c @limit@
