# shellcheck shell=bash
# Another account that can open the locks and logs in the base directory could block this account, or read them. If the
# base directory has a looser mode, correct it; if it belongs to another account, reject it. No other directory is
# changed.
{ [ -O . ] && chmod 700 .; } || @FOREIGN@
# Create it before flock(1) does, which would use the account's umask.
[ -e @EXPID_LOCK@ ] || (umask 077; : >>@EXPID_LOCK@)
