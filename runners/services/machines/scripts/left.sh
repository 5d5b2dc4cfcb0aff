# shellcheck shell=bash disable=SC2034,SC2154 # the scripts that include this one set and use the variables
# Whether it is a process of a job on this machine, or one that such a process has left behind: it, or a process above
# it, writes into the folder of the jobs, or executes a script in there. A model often has an output file of its own.
is_job() {
  local at=$1 depth program script
  for depth in {1..32}; do
    case $(readlink "/proc/$at/fd/1" "/proc/$at/fd/2" 2>/dev/null) in */LOG_"$expid"/*) return ;; esac
    program= script=
    { IFS= read -r -d '' program; IFS= read -r -d '' script; } 2>/dev/null <"/proc/$at/cmdline"
    case "${program##*/} $script" in bash\ */LOG_"$expid"/*.cmd) return ;; esac
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
# Set `name` to the beginning of the command line of process $1: $2 characters at most.
name_of() {
  local word
  name=
  while IFS= read -r -d '' -n "$2" word || [ -n "$word" ]; do
    name+=${name:+ }$word; [ ${#name} -lt "$2" ] || break
  done 2>/dev/null <"/proc/$1/cmdline"
  name=${name:0:$2}; name=${name//[^[:print:]]/?}
}
left() {
  local pid=$1 kind=helper name signal=$helpers
  [ "$pid" != $$ ] && [ "$pid" -gt 1 ] && fields "$pid" || return
  local began=$start
  is_job "$pid" && kind=job signal=$jobs
  name_of "$pid" 120
  printf 'left %s %s %s\n' "$pid" "$kind" "$name"
  [ -n "$signal" ] && fields "$pid" && [ "$start" = "$began" ] && kill -s "$signal" "$pid" 2>/dev/null
}
leader_is_gone() {
  [ -e "/proc/$leader" ] || return 0
  fields "$leader"; [ "$start" = "$leader_start" ] && case $state in [ZXx]) ;; *) false ;; esac
}
