# shellcheck shell=bash
. probe.sh
# Without an exit code, check the process, because a run that was declared ended may still execute. A run that is
# `starting` has no process. A directory of all runs that does not exist has no directory of this run, but it can be told
# only while the place where it would be can be read.
clean() {
  key=$1 dir=$base/$1 size=0
  if ! [ -d "$dir" ]; then
    local answer=kept
    [ -x "${base%/*}" ] && { ! [ -e "$base" ] || is_readable; } && answer=absent
    printf '%s %s 0\n' "$key" $answer
    return
  fi
  case $(probe "$key" look "${@:2}") in
    "$key ended "*|"$key gone "*|"$key rebooted "*|"$key starting"*)
      read -r size _ < <(du -sk "$dir" 2>/dev/null)
      $remove "$dir" 2>/dev/null
      [ "$remove" = : ] || [ ! -e "$dir" ] || { printf '%s kept 0\n' "$key"; return; }
      printf '%s removed %s\n' "$key" "${size:-0}" ;;
    *) printf '%s kept 0\n' "$key" ;;
  esac
}
remove=@remove@
