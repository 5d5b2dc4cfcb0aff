# shellcheck shell=bash disable=SC2034,SC2154 # the scripts that include this one set and use the variables
# Whether it is a process of a job on this machine, or one that such a process has left behind: it, or a process above
# it, writes into the folder of the jobs, or executes a script in there. A model often has an output file of its own.
is_job() {
  local at=$1 depth argv
  for depth in {1..32}; do
    case $(readlink "/proc/$at/fd/1" "/proc/$at/fd/2" 2>/dev/null) in */LOG_"$expid"/*) return ;; esac
    mapfile -d '' -t argv 2>/dev/null <"/proc/$at/cmdline"
    case "${argv[0]##*/} ${argv[1]}" in bash\ */LOG_"$expid"/*.cmd) return ;; esac
    fields "$at" || return 1
    at=$parent; [ "$at" -gt 1 ] || return 1
  done
  return 1
}
fields() {
  local line=
  IFS= read -r -d '' line 2>/dev/null <"/proc/$1/stat"
  [ -n "$line" ] || return 1
  # shellcheck disable=SC2086 # the words are separate arguments
  set -- ${line##*) }
  state=$1 parent=$2 group=$3 start=${20}
  case $state in [ZXx]) return 1 ;; esac
}
left() {
  local pid=$1 kind=helper name argv signal=$helpers
  [ "$pid" != $$ ] && [ "$pid" -gt 1 ] && fields "$pid" || return
  local began=$start
  is_job "$pid" && kind=job signal=$jobs
  mapfile -d '' -t argv 2>/dev/null <"/proc/$pid/cmdline"
  name=${argv[*]}; name=${name//[^[:print:]]/?}
  printf 'left %s %s %s\n' "$pid" "$kind" "${name:0:120}"
  [ -n "$signal" ] && fields "$pid" && [ "$start" = "$began" ] && kill -s "$signal" "$pid" 2>/dev/null
}
leader_is_gone() {
  [ -e "/proc/$leader" ] || return 0
  fields "$leader"; [ "$start" = "$leader_start" ] && case $state in [ZXx]) ;; *) false ;; esac
}
