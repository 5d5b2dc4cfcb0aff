# shellcheck shell=bash disable=SC2034,SC2154 # the scripts that include this one set and use the variables
# Whether the arguments of a process are those of `autosubmit run EXPID`: an interpreter with its options, the program,
# its options, `run`, and as the only argument the expid. Then $kind is the interpreter: `shell` for a wrapper script,
# else `program`. Words and their number are bounded, because any process may have any arguments.
is_run() {
  local LC_ALL=C word place=program skip= argument= count=0
  kind=program
  while IFS= read -r -d '' -n 4096 word; do
    count=$((count + 1))
    [ $count -le 64 ] && [ ${#word} -lt 4096 ] || return 1
    if [ -n "$skip" ]; then
      case $skip$word in number*[!0-9]*) ;; *) skip=; continue ;; esac
      skip=
    fi
    case $place in
      program)
        case ${word##*/} in
          autosubmit) place=options ;;
          python*|pypy*) place=script ;;
          bash|sh|dash|ksh|zsh) place=script kind=shell ;;
          *) return 1 ;;
        esac ;;
      script)
        case $word in
          -c*) return 1 ;;
          -m) place=module ;;
          -W|-X|-O|+O|-o|+o) skip=value ;;
          -*) ;;
          autosubmit|*/autosubmit) place=options ;;
          *) return 1 ;;
        esac ;;
      module) case $word in autosubmit|autosubmit.*) place=options ;; *) return 1 ;; esac ;;
      options)
        case $word in
          --log*=*) ;;
          -lf|-lc|--log*) skip=value ;;
          -*) ;;
          run) place=run ;;
          *) return 1 ;;
        esac ;;
      run)
        case $word in
          --) place=rest ;;
          --*=*) ;;
          -st|-sa|-rom|-rm|--st*|--r*) skip=value ;;
          -p|--p*) skip=number ;;
          -*) ;;
          *) [ -z "$argument" ] || return 1; argument=$word ;;
        esac ;;
      rest) [ -z "$argument" ] || return 1; argument=$word ;;
    esac
  done 2>/dev/null <"/proc/$1/cmdline"
  [ "$argument" = "$expid" ]
}
# Whether process $1 has another home directory than ours. $run_key is then the run of this service that it belongs to.
is_of_other_home() {
  local LC_ALL=C item home=$HOME count=0
  run_key=
  while IFS= read -r -d '' -n 8192 item; do
    count=$((count + 1))
    [ $count -le 4096 ] || break
    case $item in HOME=*) home=${item#HOME=} ;; @RUN_KEY_VARIABLE@=*) run_key=${item#*=} ;; esac
  done 2>/dev/null <"/proc/$1/environ"
  [ "${home%/}" != "${HOME%/}" ]
}
# Set `foreign` to one line for each run of `expid` in this account that is not in `known`. `known` has words: PID.START,
# or the key of a run. A process that another found process has started is the same run: a wrapper, or a fork.
foreign_runs() {
  local directory pid at depth each found=' ' kinds=' ' name hertz now up since count=0
  foreign=
  # One grep over all arguments takes less time than the shell needs to read those of each process.
  # shellcheck disable=SC2013 # these names have no blanks
  for directory in $(LC_ALL=C grep -lsazE '(^|/)autosubmit($|[.])' /proc/[0-9]*/cmdline); do
    directory=${directory%/cmdline}; pid=${directory#/proc/}
    [ -O "$directory" ] && is_run "$pid" && fields "$pid" || continue
    is_of_other_home "$pid" && continue
    case " $known " in *" $pid.$start "*|*" ${run_key:-none} "*) continue ;; esac
    found+="$pid "; kinds+="$pid.$kind "
  done
  [ "$found" != ' ' ] || return 0
  for pid in $found; do
    at=$pid
    for depth in {1..16}; do
      fields "$at" || break
      at=$parent
      [ "$at" -gt 1 ] || break
      case $found in *" $at "*) ;; *) continue ;; esac
      case $kinds in
        *" $at.shell "*) case $kinds in *" $pid.program "*) found=${found/ $at / }; continue ;; esac ;;
      esac
      found=${found/ $pid / }
      break
    done
  done
  hertz=$(getconf CLK_TCK 2>/dev/null) || hertz=100
  printf -v now '%(%s)T' -1
  read -r up _ </proc/uptime
  for pid in $found; do
    is_run "$pid" && fields "$pid" || continue
    count=$((count + 1)); [ $count -le 10 ] || break
    since=$((now - ${up%.*} + start / hertz))
    name_of "$pid" 200
    foreign+="foreign $host $boot $space $pid $start $since $name"$'\n'
  done
}
