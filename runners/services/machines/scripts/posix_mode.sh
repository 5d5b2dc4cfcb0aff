# shellcheck shell=sh
# Remember that POSIXLY_CORRECT is exported: `replaced_by` gives it to the command. `printenv`, because each shell in the
# POSIX mode has the variable. Programs look whether it exists, not at its value.
[ -z "${POSIXLY_CORRECT+set}" ] || ! printenv POSIXLY_CORRECT >/dev/null 2>&1 || export autosubmit_runners_posix='export POSIXLY_CORRECT=y; unset autosubmit_runners_posix'
