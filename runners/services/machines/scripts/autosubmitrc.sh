# shellcheck shell=bash
# The configuration file that Autosubmit reads: a list that can be joined with `&&`.
{ file=
if [ -n "$AUTOSUBMIT_CONFIGURATION" ] && [ -e "$AUTOSUBMIT_CONFIGURATION" ]; then file=$AUTOSUBMIT_CONFIGURATION
else for each in @BASE_DIRECTORY@/.autosubmitrc "$HOME/.autosubmitrc" /etc/autosubmitrc /etc/.autosubmitrc; do
if [ -e "$each" ]; then file=$each; break; fi; done; fi
printf '\n%s\n%s\n' @marker@ "$(uname -n)"; if [ -f "$file" ]; then head -c @limit@ -- "$file"; fi; }
