# shellcheck shell=bash
. machine.sh
. left.sh
. foreign.sh
expid=@expid@ known=@known@
foreign_runs
printf '%send\n' "$foreign"
