# shellcheck shell=bash
# Runner.execute sends this before each script if the profile has RUN_DIRECTORY. Other accounts may write into that
# directory, so ours must be no link, belong to this account and be in a place where nobody else can rename it.
autosubmit_runners_base=@directory@/autosubmit-runners-$EUID
autosubmit_runners_refuse() { echo @FAILED@ @NO_RUN_DIRECTORY@; printf '%s %s\n%s\n' "$@" @UNUSABLE@ >&2; exit @NO_RUN_DIRECTORY@; }
[ -d @directory@ ] || autosubmit_runners_refuse @directory@ "is not a directory on this machine."
if [ -L "$autosubmit_runners_base" ] || { [ -e "$autosubmit_runners_base" ] && ! [ -O "$autosubmit_runners_base" ]; }; then
  autosubmit_runners_refuse "$autosubmit_runners_base" "is a link, or belongs to another account. Remove it."
fi
case $(stat -L -c %A @directory@) in ????????w[!tT]*)
  autosubmit_runners_refuse @directory@ "lets every account rename what others have there. Set its sticky bit (chmod +t)." ;;
esac
