"""The shell texts that run on the machine: one set for LOCAL and SSH, pure functions to `str`.

They need bash 4.2, coreutils (`timeout`, `env`, `head`, `tail`, `stat`, `mkdir`, `mv`, `chmod`, `id`) and grep, as
every Linux cluster has. Whatever comes from outside is put in with `shlex.quote`.

A run's directory `~/.autosubmit-runners/<key>/` (mode 0700) holds:
    command.sh   what is executed
    identity     one line, see `Identity` in probe.py; created by the supervisor before the command may execute, or
                 by a probe past the launch deadline ("claimed"): whoever comes first decides
    log          standard output and error of the command
    begun        an empty file, made when the prelude has succeeded, right before the command
    running      an empty file; at the end it is renamed to ended.<exit code>.<signal name or ->.<epoch seconds>
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from shlex import join, quote

BASE = ".autosubmit-runners"
RUN_KEY_VARIABLE = "AUTOSUBMIT_RUNNERS_KEY"  # in the environment of a run's processes: how a stop finds them all
END = "#end"
FOREIGN = (
    f"{{ echo '~/{BASE} belongs to another account, or its mode cannot be changed: remove it, or give it to this "
    "account with mode 0700.' >&2; exit 73; }"
)
READY = "ready"  # the last line of a launch that succeeded
FAILED = "failed"  # the first word of a launch that certainly has not started its command; its exit code follows
LATE = "late"  # the first line of a launch whose command may begin yet
# Exit codes of a launch that failed.
PRELUDE_FAILED, NO_LOGIN_SHELL, NO_RUN_DIRECTORY, CANNOT_WRITE = 70, 71, 73, 74
KILL_AFTER = 5  # seconds between the TERM and the KILL of `timeout` at a command's deadline
OPENING = b"exit 125\n"  # ends any shell that reads it: bash, dash, ksh, zsh, tcsh, fish
KILLED = 128 + 9  # exit code that a shell gives to a process that was ended by a KILL
OTHER_SHELL = 125  # exit code of a shell that is not our reader and has executed OPENING
UNREAD = "#unread"  # what our reader prints instead of evaluating a script that did not arrive whole
CUT_SHORT = 126  # exit code when the script did not arrive whole; nothing of it was executed

# /proc/PID/stat: the second field may hold blanks and brackets, so cut behind its last ") ". Then the state is $1 and
# the process group is $3 and the start time in clock ticks since boot is $20. Source: proc(5). Redirect 2 first, or
# bash complains of a missing file.
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

# Builtins only: on the way of a launch or a status each program costs more than a millisecond. The kernel tells the
# pid namespace's number in fdinfo since 5.14.
_MACHINE = r"""
read -r host </proc/sys/kernel/hostname; read -r boot </proc/sys/kernel/random/boot_id; space=
while read -r name number; do
  [ "$name" = ino: ] && space="pid:[$number]"
done 2>/dev/null 7</proc/self/ns/pid </proc/self/fdinfo/7
[ -n "$space" ] || space=$(readlink /proc/self/ns/pid)
"""


# Undo what start-up files may have changed: aliases, traps, options, the separators of words.
_NORMAL = (
    "builtin shopt -u expand_aliases; builtin trap - DEBUG ERR RETURN EXIT; builtin set +aefuvxC; builtin unset -v IFS"
)


def encoded(script: str) -> bytes:
    """A script as one word without blanks, quotes or line ends, for `printf %b` of bash.

    No shell and no interpreter does anything with such a word, or with any part of it, but complain.
    """
    return _UNSAFE.sub(lambda found: b"\\x%02x" % found[0][0], f"{script}\n{END}".encode())


_UNSAFE = re.compile(rb"[^A-Za-z0-9_./,:+@-]")


def bootstrap(length: int, *, marker: str, login: bool, timeout: float | None) -> list[str]:
    """The argv that starts our reader: it evaluates the script that comes as `length` bytes of `encoded`.

    It is short whatever the script (no argument limit, nothing to see in `ps`), and joined by `shlex.join` any login
    shell can parse it, csh and fish included. The profile scripts of a login shell get /dev/null, so that they cannot
    swallow the script.

    The reader prints `marker` on both streams when it is ready. What comes before is the chatter of start-up files.
    Then it expects OPENING and the script. Anything else is not evaluated, and UNREAD is printed. The last line on both
    streams is `<marker> <exit code>`; a script that ends with `exec` outside of a login shell has none, and one in a
    login shell that a KILL has ended has none. The marker
    stands in the command line in two parts, so that nobody prints it by repeating the command line.

    `timeout` in seconds ends all that it started; None: the script ends by itself.
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
    if login:  # the shell that opens a way around the login shell's /dev/null also tells the exit code
        reader.insert(0, f"exec <&3 3<&- || exit {CUT_SHORT}")
        shell = join([*bounded, "bash", "-lc", "; ".join(reader)])
        # After a KILL nobody knows here whether the shell was killed, or only `timeout`, without which it goes on.
        return ["sh", "-c", f"{shell} 3<&0 </dev/null; code=$?; [ $code -eq {KILLED} ] || {{ {tell}; }}; exit $code"]
    tell = f"code=$?; {tell}; exit $code"
    # One process less to start. The TERM is that of `timeout`; without a trap for it, `$?` would be any command's.
    reader.insert(1, f"tell={quote(tell)}; builtin trap -- \"$tell\" EXIT; builtin trap 'exit 124' TERM")
    return [*bounded, *_BASH, "-c", "; ".join(reader)]


# sshd's bash has read ~/.bashrc already. A bash that finds SSH_CLIENT would read it once more. -p: without $BASH_ENV
# and the functions of the environment, which can have the names of builtins.
_BASH = ("bash", "--norc", "-p")
_BASE_DIRECTORY = f'"$HOME"/{BASE}'
EXPID_LOCK = "expid.lock"  # in the base directory, for create-experiment
# flock(1) would make it with the account's umask.
_LOCK_FILE = f"[ -e {EXPID_LOCK} ] || (umask 077; : >>{EXPID_LOCK})"


def surroundings(directory: str = _BASE_DIRECTORY) -> str:
    """A shell list that gives a command the surroundings Autosubmit depends on.

    Autosubmit reads `./.autosubmitrc`, deletes `./autosubmit.lock` and finds its processes by the name in USER, so
    the working directory is one of ours and the names are the account's own.
    """
    # Another account that can open the locks and logs in the base directory can block this one, or read them. A base
    # directory with a looser mode is corrected, one of another account is refused. No other directory is changed.
    private = f"{{ [ -O . ] && chmod 700 .; }} || {FOREIGN}; {_LOCK_FILE}; " if directory == _BASE_DIRECTORY else ""
    return (
        f"{{ cd {directory} 2>/dev/null || {{ mkdir -p -m 700 {directory} && cd {directory}; }} || exit 73; {private}"
        # \u in a prompt is the account's name, at no cost; it has blanks ("I have no name!") when there is none.
        '[ $BASH_VERSINFO -ge 5 ] && USER=\'\\u\' && USER=${USER@P} && [ "${USER%% *}" = "$USER" ] || USER=$(id -un); '
        "LOGNAME=$USER; export USER LOGNAME; unset USERNAME; }"
    )


# The supervisor stays behind in the session that each command has for itself (sshd and LocalRunner see to that), in a
# process group of its own. `set -m` gives the command another group and default signals (a shell without job control
# starts `&` commands with INT ignored, and `autosubmit stop` sends INT); the no-op traps keep the supervisor alive to
# report when somebody signals the whole session. `jobs -l` tells "Exit 137" from "Killed", which the exit code alone
# cannot: Autosubmit's own codes go beyond 128.
# The command's login shell starts first, because its profiles take longest, and waits for `go`. That comes only when
# its identity is on disk; when the supervisor ends before, the shell ends, too. `set -C` opens `identity` with O_EXCL:
# a probe that claims a launch past its deadline creates the same file, so exactly one of the two comes first. Whoever
# asked for the launch may be gone when it is told: that must not end the run (PIPE). A shell that ends with 0 without
# having begun the command, because a start-up file has replaced it, has failed.
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
# Signals that were ignored when a shell started stay so in all that it starts: they are reset by starting once more.
# (Bash itself always ignores QUIT, without passing that on.)
_DEFAULT_SIGNALS = r"""
IFS= read -r -d '' status </proc/self/status
[[ $status =~ SigIgn:[[:space:]]*([0-9a-f]+) ]] && (( 0x${BASH_REMATCH[1]} & 0x4003 )) &&
  printf -v script 'tell=%q; trap -- "$tell" EXIT\n%s' "$tell" "${script:?}" &&
  exec env --default-signal=HUP,INT,QUIT,TERM bash --norc -p -c "$script"
"""


def launch(key: str, command: str, *, timeout: float, prelude: Sequence[str] = ()) -> str:
    """Start `command` detached; print its identity, and `ready` once its prelude has succeeded and it is about to
    execute.

    `mkdir` of the run directory fails when it exists, so one key is launched once at most, however often this text
    arrives. Not being able to write there is found before anything starts.

    Prints the identity and `ready`; or `failed CODE` when the command certainly was not and will not be started, and
    then the last words of the log; or `late` when the prelude takes longer than `timeout` seconds. Any other answer
    means that nobody knows. Codes: 70 the prelude failed, 71 start-up files replaced or ended the login shell, 73 no
    run directory, 74 cannot write.
    """
    directory = f'"$HOME"/{BASE}/{quote(key)}'
    begin = '(umask 077; : >"$autosubmit_runners_begun")'
    # Nobody may be listening any more; what is ignored stays so in the command, hence the second trap.
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


# The owner of a run can write anything into its directory, FIFOs and names with line ends included. So what is found
# there is opened only when it is a regular file, is read up to a limit, and is printed only when it matches a pattern:
# no line can be forged, and no probe of other runs can be blocked. answers.py checks the exact bounds afterwards.
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
    """Ask after runs: `(key, claim, identity fields or nothing)` each. One line a run: `<key> <answer> <facts>`.

    Answers: `ended CODE.SIGNAL.EPOCH interrupted|-`, `running IDENTITY`, `gone IDENTITY`, `rebooted IDENTITY`,
    `elsewhere HOST`, `starting`, `never_started`, `unknown WHY`. With `claim`, a run that left no identity is made
    impossible (the place of its identity is taken, so that its launch fails) before it is called never_started.
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
    """Send `name` to the run's own processes, then print what a probe would.

    Its own are: the process group of the command while the command is the process we started (pid *and* start time)
    and the leader of that group, and whatever carries the run's key in its environment. A process that merely has the
    pid now is never touched, and the supervisor is spared so that it can write the exit code. Nothing is ever sent to
    pid 1 or below: `kill -- -1` means every process. `spare_jobs_of`: an expid, whose jobs of the local platform get
    nothing; they are meant to outlive the run.
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
    """Print the pid of the process that `autosubmit stop` would take for the run of `expid`, if there is one.

    It takes the account's lowest pid whose arguments, reduced to `autosubmit`, `run` and the expid, are exactly these
    three, whatever its home and database: the same-named run of another home, too. Source: measured on 4.1.17.1.
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
    """Let `command`, an `autosubmit stop --cancel` of `expid` in its environment, cancel jobs after the run's end.

    Autosubmit cancels only the jobs of a run that it has just stopped. It knows a run by its arguments (see
    `first_match`), so a placeholder process, which only waits, gets the arguments `autosubmit run EXPID`. Autosubmit
    sends it the INT, sees its end, and cancels. The placeholder also ends with this script. When a real
    process has these arguments, nothing is executed: the script prints `busy PID` and ends with exit code 76.
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
    """Print `NAME TYPE` for each platform in these YAML files of an experiment, 200 lines at most."""
    names = " ".join(map(quote, files))
    read = f'for file in {names}; do head -c 65536 -- "$file" 2>/dev/null; echo; done'
    return f"{read} | awk {quote(_CONFIGURED)} | head -n 200\n"


def leftovers(
    keys: Sequence[str], identity: Sequence[str], expid: str, *, group: bool, helpers: str = "", jobs: str = ""
) -> str:
    """Print what is left of a run that has ended: `left PID KIND COMMAND LINE` for each process, then `end`.

    KIND is `job` for processes of jobs on the local platform, which Autosubmit starts as `bash .../LOG_EXPID/JOB.cmd`
    and which write into that folder, else `helper`. `helpers` and `jobs`: the signal that each kind gets; empty: none.
    Left of a run is what carries one of the `keys` in its environment, and with `group`, which is for the moments
    after the end, what is in the process group of the command (Autosubmit's log recovery overwrites its environment
    with a title). A group keeps its number while it has members, so members of a group whose leader is gone, and that
    began after the leader, belong to this run. On another machine or after a reboot it prints `elsewhere` only.
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
    """Print the lines of the run's log that match an extended regular expression: the last `limit` bytes of them.

    Of lines in a row that hold the text `repeated`, only the last is printed.
    Exit code 66: there is no log, or something that is no regular file.
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
    """Print `<size> <start>` on a line and then at most `limit` bytes of the run's log from byte `offset`.

    A negative offset counts from the end. Exit code 66: there is no log, or something that is no regular file.
    """
    return f"""
cd "$HOME/{BASE}/"{quote(key)} 2>/dev/null && [ -f log ] && size=$(stat -L -c %s log 2>/dev/null) || exit 66
offset={offset}
[ "$offset" -ge 0 ] || offset=$((size + offset)); [ "$offset" -ge 0 ] || offset=0
printf '%s %s\\n' "$size" "$offset"
[ "$offset" -ge "$size" ] || tail -c "+$((offset + 1))" log | head -c {limit}
"""


def job_list_size(expid: str) -> str:
    """Print the size in bytes of an experiment's job list (`pkl/job_list_EXPID.pkl`); nothing when it is not found.

    Experiments are where `path` in `[local]` of ~/.autosubmitrc says, else in ~/autosubmit. Source: `autosubmit
    configure` of 3.14 to 4.1.
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
