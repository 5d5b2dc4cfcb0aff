# shellcheck shell=bash disable=SC2154 # a list that can be joined with `&&`
# A run, create and setstatus lock this file, other commands do not. The command inherits descriptor 7, so the lock is
# held until it ends. The file is not created here: 4.0 takes its existence for a run.
{
. experiments_root.sh
lock=$root/@expid@/tmp/autosubmit.lock
if [ -e "$lock" ]; then
if exec 7<>"$lock"; then flock -n -E @BUSY@ 7; code=$?; else code=1; fi
case $code in 0) ;;
@BUSY@) printf '[CRITICAL] %s\n' @locked@; false ;;
*) printf '[CRITICAL] The lock of the experiment cannot be taken, so it is not known whether it is running: %s\n' "$lock"
false ;;
esac
fi; }
