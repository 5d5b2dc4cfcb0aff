# shellcheck shell=bash
# An EXIT trap reports the exit code, which saves one process. `timeout` sends the TERM; without a trap for TERM, `$?`
# would be the exit code of an arbitrary command.
. normal.sh
tell=@report@
builtin trap -- "$tell" EXIT
builtin trap 'exit 124' TERM
. reader.sh
