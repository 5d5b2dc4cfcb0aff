# shellcheck shell=bash disable=SC2154 # `root` is set by the included file
. experiments_root.sh
[ -d "$root/"@expid@ ] || exit @NO_EXPERIMENT@
# Not through a link, so nothing outside of tmp/ is listed.
[ ! -L "$root/"@expid@/tmp ] && cd "$root/"@expid@/tmp 2>/dev/null || { echo 'total 0'; exit; }
LC_ALL=C find . -maxdepth 1 -type f -name @expid@'_*.cmd' ! -name '*[[:cntrl:]]*' -printf '%f %s %T@\n' 2>/dev/null |
LC_ALL=C sort | awk -v from=@offset@ -v most=@limit@ 'NR > from && NR <= from + most; END { print "total", NR }'
