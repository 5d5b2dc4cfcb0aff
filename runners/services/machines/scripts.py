"""The shell scripts that run on the machine: one set for LOCAL and SSH, built by pure functions that return `str`.

They need bash 4.2, coreutils (`timeout`, `env`, `head`, `tail`, `stat`, `mkdir`, `mv`, `chmod`, `id`) and grep, as
every Linux cluster has. All external values are quoted with `shlex.quote`.

A run's directory `~/.autosubmit-runners/<key>/` (mode 0700) holds:
    command.sh   what is executed
    identity     one line, see `Identity` in probe.py; created by the supervisor before the command may execute, or
                 by a probe after the launch deadline (it then holds "claimed"): the first of the two wins the race
    log          standard output and error of the command
    begun        an empty file, created after the prelude has succeeded, right before the command starts
    running      an empty file; at the end it is renamed to ended.<exit code>.<signal name or ->.<epoch seconds>
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from shlex import join, quote

BASE = ".autosubmit-runners"
RUN_KEY_VARIABLE = "AUTOSUBMIT_RUNNERS_KEY"  # in the environment of a run's processes, so that a stop finds them all
END = "#end"
FOREIGN = (
    f"{{ echo '~/{BASE} belongs to another account, or its mode cannot be changed: remove it, or give it to this "
    "account with mode 0700.' >&2; exit 73; }"
)
READY = "ready"  # the last line of a launch that succeeded
FAILED = "failed"  # the first word of a launch that certainly has not started its command; the exit code follows
LATE = "late"  # the first line of a launch that timed out and whose command may still start
# Exit codes of a launch that failed.
PRELUDE_FAILED, NO_LOGIN_SHELL, NO_RUN_DIRECTORY, CANNOT_WRITE = 70, 71, 73, 74
KILL_AFTER = 5  # seconds between the TERM and the KILL of `timeout` at a command's deadline
OPENING = b"exit 125\n"  # ends any shell that executes it: bash, dash, ksh, zsh, tcsh, fish
KILLED = 128 + 9  # exit code that a shell reports for a process that a KILL ended
OTHER_SHELL = 125  # exit code of a shell that is not our reader and has executed OPENING
UNREAD = "#unread"  # what our reader prints when the script arrived incomplete; the script is then not evaluated
CUT_SHORT = 126  # exit code when the script arrived incomplete; no part of it was executed

# /proc/PID/stat: the second field may contain blanks and brackets, so drop everything up to the last ") ". Then $1 is
# the state, $3 the process group and $20 the start time in clock ticks since boot. Source: proc(5). Redirect stderr
# before stdin, otherwise bash prints an error when the file is missing.
_PROCESS = r"""
stat_of() {
  local line=
  IFS= read -r -d '' line 2>/dev/null <"/proc/$1/stat"
  [ -n "$line" ] || return 1
  set -- ${line##*) }
  state=$1 group=$3 start=${20}
}
alive() { stat_of "$1" && [ "$start" = "$2" ] && case $state in [ZXx]) false ;; esac; }
"""

# Use builtins only: each external program delays a launch or a status by more than a millisecond. fdinfo contains the
# number of the pid namespace since kernel 5.14; `readlink` is the fallback.
_MACHINE = r"""
read -r host </proc/sys/kernel/hostname; read -r boot </proc/sys/kernel/random/boot_id; space=
while read -r name number; do
  [ "$name" = ino: ] && space="pid:[$number]"
done 2>/dev/null 7</proc/self/ns/pid </proc/self/fdinfo/7
[ -n "$space" ] || space=$(readlink /proc/self/ns/pid)
"""


# Undo what start-up files may have changed: aliases, traps, options, the word separators (IFS).
_NORMAL = (
    "builtin shopt -u expand_aliases; builtin trap - DEBUG ERR RETURN EXIT; builtin set +aefuvxC; builtin unset -v IFS"
)


def encoded(script: str) -> bytes:
    """Encode a script as one word without blanks, quotes or line ends, for `printf %b` of bash.

    Any other shell or interpreter that reads this word, or a part of it, can only report an error.
    """
    return _UNSAFE.sub(lambda found: b"\\x%02x" % found[0][0], f"{script}\n{END}".encode())


_UNSAFE = re.compile(rb"[^A-Za-z0-9_./,:+@-]")


def bootstrap(length: int, *, marker: str, login: bool, timeout: float | None) -> list[str]:
    """Return the argv that starts our reader, which evaluates a script that arrives as `length` bytes of `encoded`.

    The argv is short for every script, so no argument limit applies and `ps` does not show the script. Any login shell
    can parse the argv after `shlex.join`, including csh and fish. The profile scripts of a login shell get /dev/null as
    standard input, so that they cannot consume the script.

    The reader prints `marker` on both streams when it is ready. Everything before the marker is output of start-up
    files. Then the reader expects OPENING and the script. It does not evaluate anything else and prints UNREAD instead.
    The last line on both streams is `<marker> <exit code>`. This line is missing in two cases: a script outside of a
    login shell ended with `exec`, or a KILL ended a script in a login shell. The command line contains the marker in
    two parts, so that a program that echoes the command line does not print the marker.

    `timeout` in seconds ends everything that was started; None: the script ends by itself.
    """
    marks = quote(marker[: len(marker) // 2]) + " " + quote(marker[len(marker) // 2 :])
    say = f"builtin printf '\\n%s%s\\n' {marks}"
    tell = f"printf '\\n%s%s %s\\n' {marks} $code >&2; printf '\\n%s%s %s\\n' {marks} $code"
    refuse = f"{{ echo {quote(UNREAD)}; exit {CUT_SHORT}; }}"
    reader = [
        _NORMAL,
        f"{say} >&2 && {say} || exit {CUT_SHORT}",
        f'IFS= builtin read -r line && [ "$line" = {quote(OPENING.decode().strip())} ] || {refuse}',
        f"LC_ALL=C IFS= builtin read -r -N {length} script || {refuse}",
        'builtin printf -v script %b "$script"',
        f'case $script in *{quote(END)}) builtin eval "$script" ;; *) {refuse} ;; esac',
    ]
    bounded = [] if timeout is None else ["timeout", "-k", str(KILL_AFTER), f"{timeout:g}"]
    if login:  # the outer sh passes its standard input on as descriptor 3, and also reports the exit code
        reader.insert(0, f"exec <&3 3<&- || exit {CUT_SHORT}")
        shell = join([*bounded, "bash", "-lc", "; ".join(reader)])
        # Do not report a KILL: it may have ended the shell, or only `timeout`, and then the shell still runs.
        return ["sh", "-c", f"{shell} 3<&0 </dev/null; code=$?; [ $code -eq {KILLED} ] || {{ {tell}; }}; exit $code"]
    tell = f"code=$?; {tell}; exit $code"
    # An EXIT trap reports the exit code, which saves one process. `timeout` sends the TERM; without a trap for TERM,
    # `$?` would be the exit code of an arbitrary command.
    reader.insert(1, f"tell={quote(tell)}; builtin trap -- \"$tell\" EXIT; builtin trap 'exit 124' TERM")
    return [*bounded, *_BASH, "-c", "; ".join(reader)]


# --norc: sshd's bash has already read ~/.bashrc, and a bash that finds SSH_CLIENT would read it again. -p: ignore
# $BASH_ENV and the functions in the environment, which can have the names of builtins.
_BASH = ("bash", "--norc", "-p")
_BASE_DIRECTORY = f'"$HOME"/{BASE}'
EXPID_LOCK = "expid.lock"  # in the base directory, for create-experiment
# Create it before flock(1) does, which would use the account's umask.
_LOCK_FILE = f"[ -e {EXPID_LOCK} ] || (umask 077; : >>{EXPID_LOCK})"


def surroundings(directory: str = _BASE_DIRECTORY) -> str:
    """Return a shell list that sets the working directory and the user names that Autosubmit depends on.

    Autosubmit reads `./.autosubmitrc`, deletes `./autosubmit.lock` and finds its processes by the name in USER. So
    the working directory is one of ours, and the names are those of the account.
    """
    # Another account that can open the locks and logs in the base directory could block this account, or read them. If
    # the base directory has a looser mode, correct it; if it belongs to another account, reject it. No other directory
    # is changed.
    private = f"{{ [ -O . ] && chmod 700 .; }} || {FOREIGN}; {_LOCK_FILE}; " if directory == _BASE_DIRECTORY else ""
    return (
        f"{{ cd {directory} 2>/dev/null || {{ mkdir -p -m 700 {directory} && cd {directory}; }} || exit 73; {private}"
        # \u in a prompt expands to the account's name without another process. If the account has no name, the result
        # has blanks ("I have no name!").
        '[ $BASH_VERSINFO -ge 5 ] && USER=\'\\u\' && USER=${USER@P} && [ "${USER%% *}" = "$USER" ] || USER=$(id -un); '
        "LOGNAME=$USER; export USER LOGNAME; unset USERNAME; }"
    )


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
_IN_LOGIN_SHELL = (
    f"{_NORMAL}; trap '' PIPE; {{ echo shell >&9 || :; }} 2>/dev/null; trap - PIPE; "
    'builtin read -r go <&8 && exec 8<&- && . "$1/command.sh" >>"$1/log" 2>&1'
)
_SUPERVISOR = (
    r"""
supervise() {
  trap : HUP INT QUIT TERM
  set -m
  last=
  stat_of "$BASHPID"; own="$BASHPID $start"
  exec 9>&1
  coproc command {
    exec bash -lc """
    + quote(_IN_LOGIN_SHELL)
    + r""" "$0" "$dir" 8<&0 </dev/null >&2
  }
  give_up() { { kill -KILL -- "-$child"; wait "$child"; } 2>/dev/null; echo "exit $1"; exit; }
  umask 077
  child=$command_PID
  trap '' PIPE
  mkdir -m 700 "$dir" && cd "$dir" || give_up 73
  printf %s "$text" >command.sh && : >running && : >log || { cd /; rm -rf "$dir"; give_up 74; }
  stat_of "$child"
  identity="$host $boot $space $child $start $own"
  set -C
  printf '%s\n' "$identity" >identity || give_up 74
  set +C
  printf '%s\n' "$identity"
  trap 'line=$(LC_ALL=C jobs -l) && last=${line:-$last}' CHLD
  { echo go >&"${command[1]}"; } 2>/dev/null
  exec >/dev/null 2>&1 9>&-
  chmod 700 "$base"
  while wait "$child"; code=$?; kill -0 "$child"; do sleep 1; done
  case $last in *" Exit $code "*|*" Done "*|'') signal=- ;; *) signal=$(kill -l "$code") || signal=- ;; esac
  [ "$code" -eq 0 ] && ! [ -e begun ] && code=70
  printf -v now '%(%s)T' -1
  for try in {1..360}; do
    [ -e running ] || exit
    mv running "ended.$code.$signal.$now" && exit
    sleep 10
  done
}
"""
)
# Signals that were ignored when a shell started stay ignored in all its children. So start the shell again with default
# signals. (Bash itself always ignores QUIT, but its children do not inherit that.)
_DEFAULT_SIGNALS = r"""
IFS= read -r -d '' status </proc/self/status
[[ $status =~ SigIgn:[[:space:]]*([0-9a-f]+) ]] && (( 0x${BASH_REMATCH[1]} & 0x4003 )) &&
  printf -v script 'tell=%q; trap -- "$tell" EXIT\n%s' "$tell" "${script:?}" &&
  exec env --default-signal=HUP,INT,QUIT,TERM bash --norc -p -c "$script"
"""


def launch(key: str, command: str, *, timeout: float, prelude: Sequence[str] = ()) -> str:
    """Return the script that starts `command` detached and reports its identity.

    `mkdir` of the run directory fails if it exists, so one key is launched at most once, even if this script arrives
    several times. The script checks that it can write there before it starts anything.

    The script prints one of these answers:
    - the identity and `ready`: the prelude has succeeded and the command is about to execute
    - `failed CODE` and then the end of the log: the command certainly was not and will not be started
    - `late`: the prelude takes longer than `timeout` seconds
    After any other answer it is unknown whether the command was started. Codes: 70 the prelude failed, 71 start-up
    files replaced or ended the login shell, 73 no run directory, 74 cannot write.
    """
    directory = f'"$HOME"/{BASE}/{quote(key)}'
    begin = '(umask 077; : >"$autosubmit_runners_begun")'
    # The client may have disconnected, so ignore PIPE. The second trap resets the signals, because the command would
    # inherit ignored ones.
    tell = f"trap '' PIPE && {{ echo {READY} >&9 || :; }} 2>/dev/null && trap - HUP INT QUIT TERM PIPE && exec 9>&-"
    lines = [surroundings(directory), *prelude, begin, tell]
    exports = f"export {RUN_KEY_VARIABLE}={quote(key)}; autosubmit_runners_begun=$1/begun"
    text = f"{exports}\n{' && '.join(lines)} && {command}\n"
    return f"""{_DEFAULT_SIGNALS}
failed() {{ printf '{FAILED} %s\\n' "$1"; [ "$1" -ne {PRELUDE_FAILED} ] || tail -c 4096 "$dir/log"; exit "$1"; }}
is_ready() {{ printf '%s\\n' "$found" {READY}; exit; }}
is_late() {{ echo {LATE}; exit 124; }}
base=$HOME/{BASE}; dir=$base/{quote(key)}; text={quote(text)}
[ -d "$base" ] || mkdir -p -m 700 "$base" || failed {NO_RUN_DIRECTORY}
[ -O "$base" ] || {{ echo {FAILED} {NO_RUN_DIRECTORY}; {FOREIGN}; }}
{_MACHINE}{_PROCESS}{_SUPERVISOR}
found= shell=
exec 8< <(set -m; supervise </dev/null &)
while IFS= read -r -t {timeout:g} -u 8 line; code=$?; [ $code -eq 0 ]; do
  case $line in
    {READY}) is_ready ;;
    shell) shell=$line ;;
    'exit '*) failed "${{line#exit }}" ;;
    *) found=$line ;;
  esac
done
[ $code -gt 128 ] && is_late
[ -n "$found" ] || exit 1
set -- $found
while alive "$4" "$5" && ! [ -e "$dir/begun" ]; do
  [ $SECONDS -lt {math.ceil(timeout)} ] || is_late
  sleep 0.05
done
[ -e "$dir/begun" ] && is_ready
[ -n "$shell" ] && failed {PRELUDE_FAILED}
failed {NO_LOGIN_SHELL}
"""


# The owner of a run can write anything into its directory, including FIFOs and names with line ends. So the probe opens
# only regular files, reads them up to a limit, and prints only content that matches a pattern. Then no line can be
# forged, and the probe of other runs cannot be blocked. answers.py checks the exact bounds afterwards.
_PROBE = r"""
end_pattern='^[0-9]+[.](-|[A-Z0-9]+|RTM(IN|AX)[-+][0-9]+)[.][0-9]+$'
identity_pattern='^([A-Za-z0-9._-]+|[(]none[)]) [0-9A-Za-z-]+ [a-z_]+:[[][0-9]+[]]( [0-9]+){4}$'
strange() {
  local name=${1:0:100}
  printf '%s unknown %s\n' "$key" \
    "the run's directory holds something else than it should: ${name//[!A-Za-z0-9._:+-]/?}"
}
# Whether this is the boot and the namespace of an identity, so that its processes can be looked at.
is_here() { [ $# -gt 0 ] && [ "$2" = "$boot" ] && [ "$3" = "$space" ]; }
# The supervisor renames `running` to `ended.*` once, after the command has ended. Other names beside it say nothing.
# Fails when there is no end; `odd` is then a name that is there instead.
ended() {
  odd=
  set -- "$dir"/ended.*
  [ -e "$1" ] || [ -L "$1" ] || return 1
  local file name= interrupted=- first=${1##*/} count=0
  if [ $# -le 100 ]; then
    for file; do
      file=${file##*/ended.}
      [ ${#file} -le 60 ] && [[ $file =~ $end_pattern ]] && name=$file count=$((count + 1))
    done
  fi
  if [ "$count" -ne 1 ] || [ -e "$dir/running" ]; then odd=$first; return 1; fi
  case $name in
    88.*) [ -f "$dir/log" ] && tail -c 4096 "$dir/log" 2>/dev/null | grep -q KeyboardInterrupt &&
      interrupted=interrupted ;;
  esac
  printf '%s ended %s %s\n' "$key" "$name" "$interrupted"
}
# Set `identity` to the words of the file; to nothing while it is being written, and when it was claimed. Fails when it
# is something else.
read_identity() {
  identity=()
  [ -e "$dir/identity" ] || return 0
  [ -f "$dir/identity" ] || return
  IFS=' ' read -r -n 1024 -a identity 2>/dev/null <"$dir/identity" || { identity=(); return 0; }
  [[ "${identity[*]}" =~ $identity_pattern ]] && return
  [ "${identity[*]}" = claimed ]; local code=$?
  identity=()
  return $code
}
# Take the place of the identity, which is created once; then no launch of this key can start.
claim() {
  [ -d "$dir" ] || { mkdir -p -m 700 "$base"; mkdir -m 700 "$dir" 2>/dev/null; }
  (set -C; echo claimed >"$dir/identity") 2>/dev/null
  [ -e "$dir/identity" ]
}
odd_or() { if [ -n "$odd" ]; then strange "$odd"; else printf '%s\n' "$key $*"; fi; }
probe() {
  key=$1 dir=$base/$1; claim=$2; shift 2
  local code=0 odd=
  if [ $# -eq 0 ]; then read_identity; code=$?; set -- "${identity[@]}"; fi
  # While the command itself lives, the run is running, whatever its directory holds.
  if is_here "$@" && alive "$4" "$5"; then printf '%s running %s\n' "$key" "$*"; return; fi
  ended && return
  # While the supervisor lives, it has the end yet to write.
  if [ -n "$odd" ] && ! { is_here "$@" && alive "$6" "$7"; }; then strange "$odd"; return; fi
  [ $code -eq 0 ] || { strange identity; return; }
  if [ $# -eq 0 ]; then
    if [ "$claim" = claim ]; then
      claim || { printf '%s unknown %s\n' "$key" "cannot write into $dir"; return; }
      read_identity || { strange identity; return; }
      [ ${#identity[@]} -gt 0 ] || { ended || odd_or never_started; return; }
    fi
    [ ${#identity[@]} -gt 0 ] || { printf '%s starting\n' "$key"; return; }
    set -- "${identity[@]}"
  fi
  if is_here "$@"; then
    if alive "$4" "$5" || alive "$6" "$7"; then printf '%s running %s\n' "$key" "$*"; return; fi
    ended || odd_or gone "$@"
  elif [ "$1" = "$host" ] && [ "$2" != "$boot" ]; then
    printf '%s rebooted %s\n' "$key" "$*"
  else
    printf '%s elsewhere %s\n' "$key" "$host"
  fi
}
"""


def probe(targets: Iterable[tuple[str, bool, Sequence[str]]]) -> str:
    """Return the script that prints the state of runs, one line per run: `<key> <answer> <facts>`.

    Each target is `(key, claim, identity fields or nothing)`. Answers: `ended CODE.SIGNAL.EPOCH interrupted|-`,
    `running IDENTITY`, `gone IDENTITY`, `rebooted IDENTITY`, `elsewhere HOST`, `starting`, `never_started`,
    `unknown WHY`. With `claim`, the script creates a missing identity file, so that a later launch of this key fails.
    Only then does it answer never_started.
    """
    lines = [_MACHINE, _PROCESS, _PROBE, f"base=$HOME/{BASE}"]
    for key, claim, identity in targets:
        words = " ".join(quote(word) for word in (key, "claim" if claim else "look", *identity))
        lines.append(f"probe {words}")
    return "\n".join(lines) + "\n"


_LEFT = r"""
is_job() {  # a process of a job on the local platform, or one that such a process has left behind
  local at=$1 depth argv
  case $(readlink "/proc/$1/fd/1" "/proc/$1/fd/2" 2>/dev/null) in */LOG_"$expid"/*) return ;; esac
  for depth in {1..32}; do
    mapfile -d '' -t argv 2>/dev/null <"/proc/$at/cmdline"
    case "${argv[0]##*/} ${argv[1]}" in bash\ */LOG_"$expid"/*.cmd) return ;; esac
    fields "$at" || return 1
    at=$parent; [ "$at" -gt 1 ] || return 1
  done
  return 1
}
fields() {
  local line=
  IFS= read -r -d '' line 2>/dev/null <"/proc/$1/stat"
  [ -n "$line" ] || return 1
  set -- ${line##*) }
  state=$1 parent=$2 group=$3 start=${20}
  case $state in [ZXx]) return 1 ;; esac
}
left() {
  local pid=$1 kind=helper name argv signal=$helpers
  [ "$pid" != "$supervisor" ] && [ "$pid" != $$ ] && [ "$pid" -gt 1 ] && fields "$pid" || return
  local began=$start
  is_job "$pid" && kind=job signal=$jobs
  mapfile -d '' -t argv 2>/dev/null <"/proc/$pid/cmdline"
  name=${argv[*]}; name=${name//[^[:print:]]/?}
  printf 'left %s %s %s\n' "$pid" "$kind" "${name:0:120}"
  [ -n "$signal" ] && fields "$pid" && [ "$start" = "$began" ] && kill -s "$signal" "$pid" 2>/dev/null
}
leader_is_gone() {
  [ -e "/proc/$leader" ] || return 0
  fields "$leader"; [ "$start" = "$leader_start" ] && case $state in [ZXx]) ;; *) false ;; esac
}
"""


def signal(key: str, identity: Sequence[str], name: str, *, spare_jobs_of: str = "") -> str:
    """Return the script that sends the signal `name` to the run's own processes, then prints the answer of a probe.

    The run's own processes are those that have the run's key in their environment, and the process group of the
    command. The group counts only while the command is still the process that we started (same pid *and* start time)
    and leads the group. Another process that has reused the pid never gets the signal. The supervisor gets no signal
    either, so that it can write the exit code. The script never sends to pid 1 or below: `kill -- -1` means every
    process. `spare_jobs_of`: an expid; its jobs on the local platform get no signal, because they are meant to outlive
    the run.
    """
    pid, start, supervisor = identity[3], identity[4], identity[5]
    return f"""{probe([])}{_LEFT}
key={quote(key)} expid={quote(spare_jobs_of)}
if [ {quote(identity[1])} = "$boot" ] && [ {quote(identity[2])} = "$space" ]; then
  leader={quote(pid)} targets=
  if [ "$leader" -gt 1 ] && alive "$leader" {quote(start)} && [ "$group" = "$leader" ]; then
    if [ -z "$expid" ]; then
      kill -s {quote(name)} -- "-$leader" 2>/dev/null
    else
      for directory in /proc/[0-9]*; do
        pid=${{directory#/proc/}}
        [ -O "$directory" ] && fields "$pid" && [ "$group" = "$leader" ] && targets+=" $pid"
      done
    fi
  fi
  for file in $(grep -lsazx {quote(f"{RUN_KEY_VARIABLE}={key}")} /proc/[0-9]*/environ); do
    pid=${{file#/proc/}}; targets+=" ${{pid%/environ}}"
  done
  for pid in $targets; do
    [ "$pid" -gt 1 ] && [ "$pid" != {quote(supervisor)} ] && [ "$pid" != $$ ] || continue
    [ -n "$expid" ] && is_job "$pid" && continue
    kill -s {quote(name)} "$pid" 2>/dev/null
  done
fi
probe {" ".join(quote(word) for word in (key, "look", *identity))}
"""


def first_match(expid: str) -> str:
    """Return the script that prints the pid that `autosubmit stop` would signal for `expid`, if there is one.

    `autosubmit stop` picks the account's lowest pid whose arguments, reduced to `autosubmit`, `run` and the expid, are
    exactly these three. It ignores home and database, so it may pick a run of the same name in another home.
    Source: measured on 4.1.17.1.
    """
    return f"""
expid={quote(expid)}; first=
for directory in /proc/[0-9]*; do
  [ -O "$directory" ] || continue
  mapfile -d '' -t argv 2>/dev/null <"$directory/cmdline" || continue
  words=
  for word in "${{argv[@]}}"; do
    case $word in run|"$expid") words="$words $word" ;; autosubmit|*/autosubmit) words="$words autosubmit" ;; esac
  done
  [ "$words" = " autosubmit run $expid" ] || continue
  pid=${{directory#/proc/}}
  [ -n "$first" ] && [ "$first" -lt "$pid" ] || first=$pid
done
printf '%s\\n' "$first"
"""


PLACEHOLDER = "placeholder-of-autosubmit-runners"  # an argument of the process that `cancelling` makes
BUSY = 76  # exit code of `cancelling`: a process runs the experiment


def cancelling(expid: str, command: str) -> str:
    """Return the script with which `command` cancels the jobs of `expid` after the run's end.

    `command` is an `autosubmit stop --cancel` in its environment. Autosubmit cancels only the jobs of a run that it has
    just stopped. It recognizes a run by its arguments (see `first_match`), so the script starts a placeholder process,
    which only waits, with the arguments `autosubmit run EXPID`. Autosubmit sends INT to the placeholder, sees that it
    ends, and cancels the jobs. The placeholder also ends with this script. If a real process has these arguments, the
    script does not execute `command`: it prints `busy PID` and ends with exit code 76.
    Source: Autosubmit's `stop` in 4.1.8 to 4.1.17.1; measured on 4.1.17.1.
    """
    place = f"exec -a autosubmit bash -c 'echo; read -r _' run \"$1\" {PLACEHOLDER}"
    return f"""
while busy=$({first_match(expid)}); [ -n "$busy" ]; do  # another cancel of the same jobs is awaited
  grep -qsazx {PLACEHOLDER} "/proc/$busy/cmdline" || break
  sleep 0.5
done
[ -z "$busy" ] || {{ printf 'busy %s\\n' "$busy"; exit {BUSY}; }}
coproc placeholder {{ exec env --default-signal=INT bash -c {quote(place)} placeholder {quote(expid)} 2>/dev/null; }}
read -r -t 10 _ <&"${{placeholder[0]}}"
({command})
"""


_CONFIGURED = r"""
function indent(line) { match(line, /^ */); return RLENGTH }
/^[ \t]*(#|$)/ { next }
indent($0) == 0 { inside = toupper($0) ~ /^["\047]?PLATFORMS["\047]?[ \t]*:[ \t]*(#.*)?\r?$/; level = -1; next }
!inside { next }
level < 0 { level = indent($0) }
indent($0) == level { name = $1; sub(/:.*/, "", name); gsub(/["\047]/, "", name); next }
toupper($1) ~ /^["\047]?TYPE["\047]?:$/ { gsub(/["\047\r]/, "", $2); print name, $2 }
"""


def platform_types(files: Sequence[str]) -> str:
    """Return the script that prints `NAME TYPE` for each platform in these YAML files of an experiment.

    It prints at most 200 lines.
    """
    names = " ".join(map(quote, files))
    read = f'for file in {names}; do head -c 65536 -- "$file" 2>/dev/null; echo; done'
    return f"{read} | awk {quote(_CONFIGURED)} | head -n 200\n"


def leftovers(
    keys: Sequence[str], identity: Sequence[str], expid: str, *, group: bool, helpers: str = "", jobs: str = ""
) -> str:
    """Return the script that prints the remaining processes of an ended run: `left PID KIND COMMAND LINE`, then `end`.

    KIND is `job` for processes of jobs on the local platform, else `helper`. Autosubmit starts such jobs as
    `bash .../LOG_EXPID/JOB.cmd`, and they write into that folder. `helpers` and `jobs`: the signal that each kind gets;
    empty: none.

    A process belongs to the run if its environment has one of the `keys`. With `group`, which is meant for the moments
    after the end, the members of the command's process group belong to it, too: Autosubmit's log recovery overwrites
    its environment with a title. A group keeps its number while it has members. So if the leader is gone, members that
    started after the leader belong to this run. On another machine or after a reboot the script prints only
    `elsewhere`.
    """
    patterns = " ".join(f"-e {quote(f'{RUN_KEY_VARIABLE}={key}')}" for key in keys)
    return f"""{_MACHINE}{_LEFT}
export LC_ALL=C
expid={quote(expid)} helpers={helpers} jobs={jobs}
leader={quote(identity[3])} leader_start={quote(identity[4])} supervisor={quote(identity[5])}
if [ {quote(identity[1])} = "$boot" ] && [ {quote(identity[2])} = "$space" ]; then
  found=" "
  for file in $(grep -lsazxF {patterns} /proc/[0-9]*/environ); do
    pid=${{file#/proc/}}; found+="${{pid%/environ}} "
  done
  if [ {int(group)} = 1 ] && leader_is_gone; then
    for directory in /proc/[0-9]*; do
      pid=${{directory#/proc/}}
      [ -O "$directory" ] && fields "$pid" && [ "$group" = "$leader" ] && [ "$start" -ge "$leader_start" ] || continue
      case $found in *" $pid "*) ;; *) found+="$pid " ;; esac
    done
  fi
  for pid in $found; do left "$pid"; done
  echo end
else
  echo elsewhere
fi
"""


def grep_log(key: str, pattern: str, *, repeated: str, limit: int) -> str:
    """Return the script that prints the log lines that match an extended regular expression: their last `limit` bytes.

    Of consecutive lines that contain the text `repeated`, it prints only the last one.
    Exit code 66: the log does not exist or is not a regular file.
    """
    last_of_row = (
        'index($0, repeated) { held = $0; next } held != "" { print held; held = "" } { print } '
        'END { if (held != "") print held }'
    )
    return f"""
cd "$HOME/{BASE}/"{quote(key)} 2>/dev/null && [ -f log ] || exit 66
LC_ALL=C grep -aE -e {quote(pattern)} log | LC_ALL=C awk -v repeated={quote(repeated)} {quote(last_of_row)} |
tail -c {limit}
"""


def read_log(key: str, *, offset: int, limit: int) -> str:
    """Return the script that prints `<size> <start>` and a line end, then at most `limit` log bytes from `offset`.

    A negative offset counts from the end. Exit code 66: the log does not exist or is not a regular file.
    """
    return f"""
cd "$HOME/{BASE}/"{quote(key)} 2>/dev/null && [ -f log ] && size=$(stat -L -c %s log 2>/dev/null) || exit 66
offset={offset}
[ "$offset" -ge 0 ] || offset=$((size + offset)); [ "$offset" -ge 0 ] || offset=0
printf '%s %s\\n' "$size" "$offset"
[ "$offset" -ge "$size" ] || tail -c "+$((offset + 1))" log | head -c {limit}
"""


def job_list_size(expid: str) -> str:
    """Return the script that prints the size in bytes of an experiment's job list (`pkl/job_list_EXPID.pkl`).

    It prints nothing if the file is not found. Experiments are in the `path` of `[local]` in ~/.autosubmitrc, else in
    ~/autosubmit. Source: `autosubmit configure` of 3.14 to 4.1.
    """
    return f"""
root=$HOME/autosubmit; section=
while IFS= read -r line; do
  case $line in
    '['*) section=$line ;;
    path*=*) [ "$section" = '[local]' ] && root=${{line#*=}} && root=${{root# }} ;;
  esac
done 2>/dev/null <"$HOME/.autosubmitrc"
file=$root/{quote(expid)}/pkl/job_list_{quote(expid)}.pkl
[ -f "$file" ] && stat -L -c %s -- "$file"
"""
