# shellcheck shell=bash
# \u in a prompt expands to the account's name without another process. If the account has no name, the result has
# blanks ("I have no name!").
# shellcheck disable=SC2086,SC2128 # the first item, a number
[ $BASH_VERSINFO -ge 5 ] && USER='\u' && USER=${USER@P} && [ "${USER%% *}" = "$USER" ] || USER=$(id -un)
LOGNAME=$USER
export USER LOGNAME
unset USERNAME
