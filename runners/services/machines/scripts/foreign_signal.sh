# shellcheck shell=bash disable=SC2034,SC2154
# Send a signal to a run that this service has not started, if it is still the same process with the same arguments.
# TERM and KILL also go to the processes that it has started, except jobs of the local platform.
. machine.sh
. left.sh
. foreign.sh
expid=@expid@ name=@name@ pid=@pid@
is_same() { fields "$pid" && [ "$start" = @start@ ] && [ -O "/proc/$pid" ]; }
below() {
  local directory each at depth
  for directory in /proc/[0-9]*; do
    each=${directory#/proc/} at=${directory#/proc/}
    [ -O "$directory" ] && [ "$each" != $$ ] || continue
    for depth in {1..16}; do
      fields "$at" || break
      at=$parent
      [ "$at" -gt 1 ] || break
      [ "$at" = "$pid" ] || continue
      is_job "$each" || targets+=" $each"
      break
    done
  done
}
if [ @boot@ != "$boot" ] || [ @space@ != "$space" ]; then
  if [ @host@ = "$host" ] && [ @boot@ != "$boot" ]; then echo gone; else printf 'elsewhere %s\n' "$host"; fi
  exit
fi
if ! is_same; then echo gone; exit; fi
if ! is_run "$pid"; then echo changed; exit; fi
if [ -n "$name" ]; then
  targets=
  case $name in TERM|KILL) below ;; esac
  is_same && is_run "$pid" && for each in $pid $targets; do
    kill -s "$name" "$each" 2>/dev/null
  done
fi
if is_same; then echo alive; else echo gone; fi
