# shellcheck shell=bash disable=SC2034
# Sets `rc`: the configuration file that Autosubmit reads, or nothing. autosubmitrc.py has the same order.
rc=
if [ -n "$AUTOSUBMIT_CONFIGURATION" ] && [ -e "$AUTOSUBMIT_CONFIGURATION" ]; then rc=$AUTOSUBMIT_CONFIGURATION
else
  for each in @BASE_DIRECTORY@/.autosubmitrc "$HOME/.autosubmitrc" /etc/autosubmitrc /etc/.autosubmitrc; do
    if [ -e "$each" ]; then rc=$each; break; fi
  done
fi
