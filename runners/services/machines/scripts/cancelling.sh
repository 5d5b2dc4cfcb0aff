# shellcheck shell=bash
# Wait for another cancel of the same jobs.
while busy=$(@first_match@); [ -n "$busy" ]; do
  grep -qsazx @PLACEHOLDER@ "/proc/$busy/cmdline" || break
  sleep 0.5
done
[ -z "$busy" ] || { printf 'busy %s\n' "$busy"; exit @BUSY@; }
# The placeholder must not ignore INT. bash may start it so without `set -m` (bash 5.2 does not). If this shell itself
# ignores INT, only `env` of coreutils 8.31 helps.
set -m
coproc placeholder {
  set -- env --default-signal=INT
  "$@" true || set --
  exec "$@" bash -c @placeholder@ placeholder @expid@
} 2>/dev/null
set +m
read -r -t 10 _ <&"${placeholder[0]}" || exit @NO_PLACEHOLDER@
(@command@)
