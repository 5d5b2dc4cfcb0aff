# shellcheck shell=bash
# Sets `root`: the directory of the experiments, as the configuration file that Autosubmit reads names it.
rc=; root=$HOME/autosubmit; section=
if [ -n "$AUTOSUBMIT_CONFIGURATION" ] && [ -e "$AUTOSUBMIT_CONFIGURATION" ]; then rc=$AUTOSUBMIT_CONFIGURATION
else
  for each in @BASE_DIRECTORY@/.autosubmitrc "$HOME/.autosubmitrc" /etc/autosubmitrc /etc/.autosubmitrc; do
    if [ -e "$each" ]; then rc=$each; break; fi
  done
fi
while IFS= read -r line; do
  case $line in
    '['*) section=$line ;;
    path*=*) [ "$section" = '[local]' ] && root=${line#*=} && root=${root# } ;;
  esac
done 2>/dev/null <"${rc:-/dev/null}"
