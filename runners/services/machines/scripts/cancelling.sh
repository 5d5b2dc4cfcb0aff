# shellcheck shell=bash
# Wait for another cancel of the same jobs.
while busy=$(@first_match@); [ -n "$busy" ]; do
  grep -qsazx @PLACEHOLDER@ "/proc/$busy/cmdline" || break
  sleep 0.5
done
[ -z "$busy" ] || { printf 'busy %s\n' "$busy"; exit @BUSY@; }
coproc placeholder { exec env --default-signal=INT bash -c @placeholder@ placeholder @expid@ 2>/dev/null; }
read -r -t 10 _ <&"${placeholder[0]}"
(@command@)
