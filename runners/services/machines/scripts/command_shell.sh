# shellcheck shell=bash disable=SC2034 # the word itself does not matter
# The login shell of a command. It waits for `go` on descriptor 8, and reports on descriptor 9.
. normal.sh
trap '' PIPE
{ echo shell >&9 || :; } 2>/dev/null
trap - PIPE
builtin read -r go <&8 && exec 8<&- && . "$1/command.sh" >>"$1/log" 2>&1
