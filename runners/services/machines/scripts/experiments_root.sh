# shellcheck shell=bash
# Sets `root`: the directory of the experiments, as ~/.autosubmitrc names it.
root=$HOME/autosubmit; section=
while IFS= read -r line; do
  case $line in
    '['*) section=$line ;;
    path*=*) [ "$section" = '[local]' ] && root=${line#*=} && root=${root# } ;;
  esac
done 2>/dev/null <"$HOME/.autosubmitrc"
