# shellcheck shell=bash
# The owner of a run can write anything into its directory, including FIFOs and names with line ends. So the probe opens
# only regular files, reads them up to a limit, and prints only content that matches a pattern. Then no line can be
# forged, and the probe of other runs cannot be blocked. answers.py checks the exact bounds afterwards.
. machine.sh
. process.sh
end_pattern='^[0-9]+[.](-|[A-Z0-9]+|RTM(IN|AX)[-+][0-9]+)[.][0-9]+$'
identity_pattern='^([A-Za-z0-9._-]+|[(]none[)]) [0-9A-Za-z-]+ [a-z_]+:[[][0-9]+[]]( [0-9]+){4}$'
strange() {
  local name=${1:0:100}
  printf '%s unknown %s\n' "$key" \
    "the run's directory has unexpected content: ${name//[!A-Za-z0-9._:+-]/?}"
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
# Create the identity file as claimed. It is created only once, so no launch of this key can start afterwards.
claim() {
  [ -d "$dir" ] || { [ -d "$base" ] || mkdir -m 700 "$base"; mkdir -m 700 "$dir"; } 2>/dev/null
  (set -C; echo claimed >"$dir/identity") 2>/dev/null
  [ -e "$dir/identity" ]
}
# A home directory that is not mounted has the exit codes of the runs. They may come back with it.
is_absent() { printf '%s unknown %s\n' "$key" "the process has ended, and the directory with its exit code is missing: ${base%/*}"; }
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
      claim || { printf '%s unknown %s\n' "$key" "cannot write into $dir"; return; }
      read_identity || { strange identity; return; }
      [ ${#identity[@]} -gt 0 ] || { ended || odd_or never_started; return; }
    fi
    [ ${#identity[@]} -gt 0 ] || { printf '%s starting\n' "$key"; return; }
    set -- "${identity[@]}"
  fi
  if is_here "$@"; then
    if alive "$4" "$5" || alive "$6" "$7"; then printf '%s running %s\n' "$key" "$*"; return; fi
    ended && return
    [ -d "${base%/*}" ] || { is_absent; return; }
    odd_or gone "$@"
  elif [ "$1" = "$host" ] && [ "$2" != "$boot" ]; then
    printf '%s rebooted %s\n' "$key" "$*"
  else
    printf '%s elsewhere %s\n' "$key" "$host"
  fi
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
