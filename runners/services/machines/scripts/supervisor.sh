# shellcheck shell=bash disable=SC2034,SC2154 # launch.sh sets the variables
# Each command has its own session (sshd and LocalRunner create it). The supervisor remains in this session, in its own
# process group. `set -m` gives the command another group and default signals: a shell without job control starts `&`
# commands with INT ignored, but `autosubmit stop` sends INT. The no-op traps keep the supervisor alive when the whole
# session gets a signal, so that it can still report. `jobs -l` distinguishes "Exit 137" from "Killed"; the exit code
# alone does not, because Autosubmit's own codes go beyond 128.
# The command's login shell starts first, because its profiles take longest, and waits for `go`. The supervisor sends
# `go` only after the identity is on disk; if the supervisor ends before, the shell ends, too. `set -C` opens `identity`
# with O_EXCL. A probe that claims a launch after its deadline creates the same file, so exactly one of the two
# succeeds. The client may have disconnected before the launch is reported; SIGPIPE is ignored so that the failed write
# does not end the run. A shell that ends with 0 but did not start the command (a start-up file replaced the shell)
# counts as failed.
supervise() {
  trap : HUP INT QUIT TERM
  set -m
  last=
  stat_of "$BASHPID"; own="$BASHPID $start"
  exec 9>&1
  coproc command {
    exec bash -lc @shell@ "$0" "$dir" 8<&0 </dev/null >&2
  }
  give_up() { { kill -KILL -- "-$child"; wait "$child"; } 2>/dev/null; echo "exit $1"; exit; }
  umask 077
  child=$command_PID
  trap '' PIPE
  mkdir -m 700 "$dir" && cd "$dir" || give_up @NO_RUN_DIRECTORY@
  printf %s "$text" >command.sh && : >running && : >log || { cd /; rm -rf "$dir"; give_up @CANNOT_WRITE@; }
  stat_of "$child"
  identity="$host $boot $space $child $start $own"
  set -C
  printf '%s\n' "$identity" >identity || give_up @CANNOT_WRITE@
  set +C
  printf '%s\n' "$identity"
  trap 'line=$(LC_ALL=C jobs -l) && last=${line:-$last}' CHLD
  { echo go >&"${command[1]}"; } 2>/dev/null
  exec >/dev/null 2>&1 9>&-
  chmod 700 "$base"
  while wait "$child"; code=$?; kill -0 "$child"; do sleep 1; done
  case $last in *" Exit $code "*|*" Done "*|'') signal=- ;; *) signal=$(kill -l "$code") || signal=- ;; esac
  [ "$code" -eq 0 ] && ! [ -e begun ] && code=@PRELUDE_FAILED@
  printf -v now '%(%s)T' -1
  for try in {1..360}; do
    [ -e running ] || exit
    mv running "ended.$code.$signal.$now" && exit
    sleep 10
  done
}
