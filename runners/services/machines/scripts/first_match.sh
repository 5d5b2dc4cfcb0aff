# shellcheck shell=bash
expid=@expid@; first=
for directory in /proc/[0-9]*; do
  [ -O "$directory" ] || continue
  mapfile -d '' -t argv 2>/dev/null <"$directory/cmdline" || continue
  words=
  for word in "${argv[@]}"; do
    case $word in run|"$expid") words="$words $word" ;; autosubmit|*/autosubmit) words="$words autosubmit" ;; esac
  done
  [ "$words" = " autosubmit run $expid" ] || continue
  pid=${directory#/proc/}
  [ -n "$first" ] && [ "$first" -lt "$pid" ] || first=$pid
done
printf '%s\n' "$first"
