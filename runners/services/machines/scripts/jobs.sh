# shellcheck shell=bash
# Read a job list with the first Python 3 that can. In a login shell with the environment of the profile, this is the
# one of Autosubmit; else the system's own is enough, except for job lists of a newer Python.
(
  for python in @pythons@; do
    command -v "$python" >/dev/null 2>&1 || continue
    @bounded@ "$python" -I -S -c @code@ @request@ @BASE_DIRECTORY@ </dev/null 2>/dev/null && exit
    [ $? -lt 124 ] || exit # it was too slow: another Python would be so, too
  done
  printf '%s - {"problem":"no_python"}\n' @mark@
)
