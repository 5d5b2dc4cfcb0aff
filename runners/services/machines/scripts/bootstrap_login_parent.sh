# shellcheck shell=sh
# Start the login shell, and report its exit code. Do not report a KILL: it may have ended the shell, or only `timeout`,
# and then the shell still runs. In the POSIX mode, a login bash would read no profile.
. posix_mode.sh
unset POSIXLY_CORRECT
@shell@ 3<&0 </dev/null
code=$?
[ $code -eq @KILLED@ ] || { @report@; }
exit $code
