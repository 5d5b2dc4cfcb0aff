# shellcheck shell=bash
# What the login shell of a command executes. The client may have disconnected, so ignore PIPE. The second trap resets
# the signals, because the command would inherit ignored ones. `begun` has the configuration file that the environment
# names, for the reader of the jobs; on a full disk it is empty.
export @RUN_KEY_VARIABLE@=@key@; autosubmit_runners_begun=$1/begun
@steps@ && (umask 077; : >"$autosubmit_runners_begun" && { printf %s "${AUTOSUBMIT_CONFIGURATION-}" >"$autosubmit_runners_begun" || :; } 2>/dev/null) && trap '' PIPE && { echo @READY@ >&9 || :; } 2>/dev/null && trap - HUP INT QUIT TERM PIPE && exec 9>&- && @command@
