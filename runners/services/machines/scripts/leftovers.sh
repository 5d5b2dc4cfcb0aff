# shellcheck shell=bash
. machine.sh
. left.sh
export LC_ALL=C
expid=@expid@ helpers=@helpers@ jobs=@jobs@
leader=@pid@ leader_start=@start@
if [ @boot@ = "$boot" ] && [ @space@ = "$space" ]; then
  found=" "
  # shellcheck disable=SC2013 # these names have no blanks
  for file in $(grep -lsazxF @patterns@ /proc/[0-9]*/environ); do
    pid=${file#/proc/}; found+="${pid%/environ} "
  done
  if [ @group@ = 1 ] && leader_is_gone; then
    for directory in /proc/[0-9]*; do
      pid=${directory#/proc/}
      [ -O "$directory" ] && fields "$pid" && [ "$group" = "$leader" ] && [ "$start" -ge "$leader_start" ] || continue
      case $found in *" $pid "*) ;; *) found+="$pid " ;; esac
    done
  fi
  for pid in $found; do left "$pid"; done
  echo end
elif [ @host@ = "$host" ] && [ @boot@ != "$boot" ]; then
  echo rebooted
else
  echo elsewhere
fi
