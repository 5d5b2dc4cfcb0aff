# shellcheck shell=bash
# Sets `root`: the directory of the experiments, as the configuration file that Autosubmit reads names it.
# autosubmitrc.py has the same rules.
. find_autosubmitrc.sh
root=$HOME/autosubmit; section=
while IFS= read -r line; do
  case $line in
    '['*) section=$line ;;
    path*=*) [ "$section" = '[local]' ] && root=${line#*=} && root=${root# } ;;
  esac
done 2>/dev/null <"${rc:-/dev/null}"
