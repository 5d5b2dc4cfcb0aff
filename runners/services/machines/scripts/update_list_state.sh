# shellcheck shell=bash
# Tell whether our file is still waiting to be read. With `remove`, for a run that has ended: remove it then.
cd -P -- @directory@ 2>/dev/null || { echo gone; exit; }
name=@name@
[ "$(stat -c %i -- "$name" 2>/dev/null)" = @inode@ ] || { echo gone; exit; }
if @remove@; then rm -f -- "$name" && echo removed; else echo waiting; fi
