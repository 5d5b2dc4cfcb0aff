# shellcheck shell=bash
# The owner of a run can write anything into its directory, including FIFOs and names with line ends. So the probe opens
# only regular files, reads them up to a limit, and prints only content that matches a pattern. Then no line can be
# forged, and the probe of other runs cannot be blocked. answers.py checks the exact bounds afterwards.
. machine.sh
. process.sh
end_pattern='^[0-9]+[.](-|[A-Z0-9]+|RTM(IN|AX)[-+][0-9]+)[.][0-9]+$'
identity_pattern='^([A-Za-z0-9._-]+|[(]none[)]) [0-9A-Za-z-]+ [a-z_]+:[[][0-9]+[]]( [0-9]+){4}$'
unknown() { printf '%s unknown %s\n' "$key" "$*"; }
strange() {
  local name=${1:0:100}
  unknown "the run's directory has unexpected content: ${name//[!A-Za-z0-9._:+-]/?}"
}
# Whether this is the boot and the namespace of an identity, so that its processes can be inspected.
is_here() { [ $# -gt 0 ] && [ "$2" = "$boot" ] && [ "$3" = "$space" ]; }
# The supervisor renames `running` to `ended.*` once, after the command has ended. Other names prove nothing.
# Fails if there is no end; `odd` is then the unexpected name, or empty.
ended() {
  odd=
  set -- "$dir"/ended.*
  [ -e "$1" ] || [ -L "$1" ] || return 1
  local file name= interrupted=- first=${1##*/} count=0
  if [ $# -le 100 ]; then
    for file; do
      file=${file##*/ended.}
      [ ${#file} -le 60 ] && [[ $file =~ $end_pattern ]] && name=$file count=$((count + 1))
    done
  fi
  if [ "$count" -ne 1 ] || [ -e "$dir/running" ]; then odd=$first; return 1; fi
  case $name in
    88.*) [ -f "$dir/log" ] && tail -c 4096 "$dir/log" 2>/dev/null | grep -q KeyboardInterrupt &&
      interrupted=interrupted ;;
  esac
  printf '%s ended %s %s\n' "$key" "$name" "$interrupted"
}
# Set `identity` to the words of the file; to nothing while the file is being written, or if it was claimed. Fails if the
# file has other content.
read_identity() {
  identity=()
  [ -e "$dir/identity" ] || return 0
  [ -f "$dir/identity" ] || return
  IFS=' ' read -r -n 1024 -a identity 2>/dev/null <"$dir/identity" || { identity=(); return 0; }
  [[ "${identity[*]}" =~ $identity_pattern ]] && return
  [ "${identity[*]}" = claimed ]; local code=$?
  identity=()
  return $code
}
# Whether the directory of all runs can be read, and that of this run if it exists. If not, a missing file in it proves
# nothing: its file system may not be mounted, and the account's ticket for it may have expired.
is_readable() {
  [ -d "$base" ] && [ -r "$base" ] && [ -x "$base" ] && { [ ! -e "$dir" ] || { [ -r "$dir" ] && [ -x "$dir" ]; }; }
}
# Create the identity file as claimed. It is created only once, so no launch of this key can start afterwards. The
# directory of all runs is not created here: without it, nothing says that the launch did not create it elsewhere.
claim() {
  if ! is_readable; then
    unknown "it is not certain that the command was not started: the directory of runs is missing or cannot be read: $base"
    return 1
  fi
  # A process that waits for a hanging file system can block readers of its environment.
  LC_ALL=C timeout -k 1 2 grep -qsazxF "@RUN_KEY_VARIABLE@=$key" /proc/[0-9]*/environ
  case $? in
    [12]) ;;
    0) unknown "a process of the run is alive, and its identity is missing in $dir"; return 1 ;;
    *) unknown "the machine could not search for processes of the run"; return 1 ;;
  esac
  [ -d "$dir" ] || mkdir -m 700 "$dir" 2>/dev/null
  (set -C; echo claimed >"$dir/identity") 2>/dev/null
  [ -e "$dir/identity" ] || { unknown "cannot write into $dir"; return 1; }
}
odd_or() { if [ -n "$odd" ]; then strange "$odd"; else printf '%s\n' "$key $*"; fi; }
probe() {
  key=$1 dir=$base/$1; claim=$2; shift 2
  local code=0 odd=
  if [ $# -eq 0 ]; then read_identity; code=$?; set -- "${identity[@]}"; fi
  # While the command itself lives, the run is running, whatever its directory holds.
  if is_here "$@" && alive "$4" "$5"; then printf '%s running %s\n' "$key" "$*"; return; fi
  ended && return
  # While the supervisor lives, it may still write the end.
  if [ -n "$odd" ] && ! { is_here "$@" && alive "$6" "$7"; }; then strange "$odd"; return; fi
  [ $code -eq 0 ] || { strange identity; return; }
  if [ $# -eq 0 ]; then
    if [ "$claim" = claim ]; then
      claim || return
      read_identity || { strange identity; return; }
      [ ${#identity[@]} -gt 0 ] || { ended || odd_or never_started; return; }
    fi
    [ ${#identity[@]} -gt 0 ] || { printf '%s starting\n' "$key"; return; }
    set -- "${identity[@]}"
  fi
  local answer=gone
  if is_here "$@"; then
    if alive "$4" "$5" || alive "$6" "$7"; then printf '%s running %s\n' "$key" "$*"; return; fi
  elif [ "$1" = "$host" ] && [ "$2" != "$boot" ]; then
    answer=rebooted
  else
    printf '%s elsewhere %s\n' "$key" "$host"; return
  fi
  # Look for the end again after this test, because the supervisor may have written it since, and because the first
  # look may have mounted the file system.
  if ! is_readable; then
    unknown "the process has ended, and the directory with its exit code is missing or cannot be read: $base"
    return
  fi
  ended || odd_or $answer "$@"
}
# Print the size and the last change of each run's log, with this machine's clock: `log CLOCK KEY/log SIZE CHANGED`, in
# bytes and epoch seconds. One external program serves all runs.
logs() {
  local key now files=()
  for key; do [ -f "$base/$key/log" ] && files+=("$key/log"); done
  [ ${#files[@]} -gt 0 ] || return 0
  printf -v now '%(%s)T' -1
  (cd "$base" && exec stat -L -c "log $now %n %s %Y" -- "${files[@]}") 2>/dev/null
}
base=@BASE_DIRECTORY@
