# shellcheck shell=bash disable=SC2034 # the scripts that include this one use the variables
# /proc/PID/stat: the second field may contain blanks and brackets, so drop everything up to the last ") ". Then $1 is
# the state, $3 the process group and $20 the start time in clock ticks since boot. Source: proc(5). Redirect stderr
# before stdin, otherwise bash prints an error when the file is missing.
stat_of() {
  local line=
  IFS= read -r -d '' line 2>/dev/null <"/proc/$1/stat"
  [ -n "$line" ] || return 1
  # shellcheck disable=SC2086 # the words are separate arguments
  set -- ${line##*) }
  state=$1 group=$3 start=${20}
}
alive() { stat_of "$1" && [ "$start" = "$2" ] && case $state in [ZXx]) false ;; esac; }
