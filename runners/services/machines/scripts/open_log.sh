# shellcheck shell=bash disable=SC2034 # the scripts that include this one use `size`
base=@BASE_DIRECTORY@
[ -d "${base%/*}" ] || { printf '%s is missing.\n%s\n' "${base%/*}" @UNUSABLE@ >&2; exit @NO_RUN_DIRECTORY@; }
cd "$base/"@key@ 2>/dev/null && [ -f log ] && size=$(stat -L -c %s log 2>/dev/null) || exit @NO_LOG@
