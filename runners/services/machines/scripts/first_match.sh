# shellcheck shell=bash
expid=@expid@; first=
# One grep over all arguments takes less time than the shell needs to read those of each process.
# shellcheck disable=SC2013 # these names have no blanks
for directory in $(LC_ALL=C grep -lsazE '(^|/)autosubmit$' /proc/[0-9]*/cmdline); do
  directory=${directory%/cmdline}
  [ -O "$directory" ] || continue
  words=
  while IFS= read -r -d '' word; do
    case $word in run|"$expid") words="$words $word" ;; autosubmit|*/autosubmit) words="$words autosubmit" ;; esac
  done 2>/dev/null <"$directory/cmdline"
  [ "$words" = " autosubmit run $expid" ] || continue
  pid=${directory#/proc/}
  [ -n "$first" ] && [ "$first" -lt "$pid" ] || first=$pid
done
printf '%s\n' "$first"
