# shellcheck shell=bash disable=SC2154
# The configuration file that Autosubmit reads: a list that can be joined with `&&`.
{
. find_autosubmitrc.sh
printf '\n%s\n%s\n' @marker@ "$(uname -n)"; if [ -f "$rc" ]; then head -c @limit@ -- "$rc"; fi; }
