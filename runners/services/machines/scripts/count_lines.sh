# shellcheck shell=bash disable=SC2154 # the included files set variables
. open_log.sh
SECONDS=0
. log_part.sh
end=@end@
[ "$end" -le "$size" ] || end=$size
if count_lines "$end"; then printf 'lines %s\n' "$lines"; else printf 'lines -\n'; fi
printf '%s\n' @END@
