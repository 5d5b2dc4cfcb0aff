#compdef asr autosubmit-runners
# zsh completion of asr. Put it as _asr into a directory of $fpath, or source it after compinit.
_asr() {
  local line word text
  local -a found described
  for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null </dev/null)}"; do
    [[ -n $line ]] || continue
    if [[ $line == $'\tFILES' ]]; then
      _files
      continue
    fi
    word=${line%%$'\t'*}
    text=${line#*$'\t'}
    found+=("$word")
    described+=("$word${text:+  -- $text}")
  done
  (( $#found )) && compadd -l -d described -a found
}
if [[ $funcstack[1] == _asr ]]; then
  _asr "$@"
else
  compdef _asr asr autosubmit-runners
fi
