# shellcheck shell=bash
. probe.sh
. left.sh
key=@key@ expid=@expid@
if [ @boot@ = "$boot" ] && [ @space@ = "$space" ]; then
  leader=@pid@ targets=
  if [ "$leader" -gt 1 ] && alive "$leader" @start@ && [ "$group" = "$leader" ]; then
    if [ -z "$expid" ]; then
      kill -s @name@ -- "-$leader" 2>/dev/null
    else
      for directory in /proc/[0-9]*; do
        pid=${directory#/proc/}
        [ -O "$directory" ] && fields "$pid" && [ "$group" = "$leader" ] && targets+=" $pid"
      done
    fi
  fi
  # shellcheck disable=SC2013 # these names have no blanks
  for file in $(grep -lsazx @variable@ /proc/[0-9]*/environ); do
    pid=${file#/proc/}; targets+=" ${pid%/environ}"
  done
  for pid in $targets; do
    [ "$pid" -gt 1 ] && [ "$pid" != $$ ] || continue
    [ -n "$expid" ] && is_job "$pid" && continue
    kill -s @name@ "$pid" 2>/dev/null
  done
fi
probe @key@ look @identity@
