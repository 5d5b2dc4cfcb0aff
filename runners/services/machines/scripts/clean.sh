# shellcheck shell=bash
. probe.sh
# Without an exit code, check the process, because a run that was declared ended may still execute. A run that is
# `starting` has no process.
clean() {
  key=$1 dir=$base/$1 size=0
  [ -d "$dir" ] || { printf '%s absent 0\n' "$key"; return; }
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
