# shellcheck shell=bash
# The profile scripts had /dev/null as standard input. bootstrap_login_parent.sh passes the real one as descriptor 3.
exec <&3 3<&- || exit @CUT_SHORT@
. normal.sh
. reader.sh
