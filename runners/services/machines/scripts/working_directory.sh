# shellcheck shell=bash
# Another command may create the directory at the same moment: only `cd` tells whether it can be used.
cd @directory@ 2>/dev/null || { said=$(mkdir -m 700 @directory@ 2>&1); cd @directory@; } || { echo "$said" >&2; echo @UNUSABLE@ >&2; exit @NO_RUN_DIRECTORY@; }
