# shellcheck shell=bash
# Signals that were ignored when a shell started stay ignored in all its children. So start the shell again with default
# signals. (Bash itself always ignores QUIT, but its children do not inherit that.) `env` can do that since coreutils
# 8.31. With an older one, go on: a stop then needs TERM or KILL.
IFS= read -r -d '' status </proc/self/status
# shellcheck disable=SC2016,SC2154 # bootstrap.sh sets `tell`
[[ $status =~ SigIgn:[[:space:]]*([0-9a-f]+) ]] && (( 0x${BASH_REMATCH[1]} & 0x4003 )) && env --default-signal=HUP true 2>/dev/null &&
  printf -v script 'tell=%q; trap -- "$tell" EXIT\n%s' "$tell" "${script:?}" &&
  exec env --default-signal=HUP,INT,QUIT,TERM bash --norc -p -c "$script"

failed() {
  printf '@FAILED@ %s\n' "$1"
  case $1 in
    @PRELUDE_FAILED@) tail -c 4096 "$dir/log" ;;
    @NO_RUN_DIRECTORY@|@CANNOT_WRITE@) echo @UNUSABLE@ >&2 ;;
  esac
  exit "$1"
}
is_ready() { printf '%s\n' "$found" @READY@; exit; }
is_late() { echo @LATE@; exit 124; }
. machine.sh
. left.sh
. foreign.sh
expid=@expid@ known=@known@ foreign=
[ -z "$expid" ] || foreign_runs
[ -z "$foreign" ] || { printf '@FAILED@ @FOREIGN_RUN@\n%s' "$foreign"; exit @FOREIGN_RUN@; }
base=@BASE_DIRECTORY@; dir=$base/@key@; text=@text@
# Another launch may create it at the same moment.
[ -d "$base" ] || mkdir -m 700 "$base" || [ -d "$base" ] || failed @NO_RUN_DIRECTORY@
[ -O "$base" ] || { echo @FAILED@ @NO_RUN_DIRECTORY@; @FOREIGN@; }
. process.sh
. supervisor.sh
found= shell=
exec 8< <(set -m; supervise </dev/null &)
while IFS= read -r -t @timeout@ -u 8 line; code=$?; [ $code -eq 0 ]; do
  case $line in
    @READY@) is_ready ;;
    shell) shell=$line ;;
    'exit '*) failed "${line#exit }" ;;
    *) found=$line ;;
  esac
done
[ $code -gt 128 ] && is_late
[ -n "$found" ] || exit 1
# shellcheck disable=SC2086 # the words are separate arguments
set -- $found
while alive "$4" "$5" && ! [ -e "$dir/begun" ]; do
  [ $SECONDS -lt @whole_seconds@ ] || is_late
  sleep 0.05
done
[ -e "$dir/begun" ] && is_ready
[ -n "$shell" ] && failed @PRELUDE_FAILED@
failed @NO_LOGIN_SHELL@
