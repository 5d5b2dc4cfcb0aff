# bash completion of asr. Put it into ~/.local/share/bash-completion/completions/asr, or source it.
_asr() {
  local line word
  COMPREPLY=()
  while IFS= read -r line; do
    if [[ $line == $'\tFILES' ]]; then
      compopt -o default 2>/dev/null
      continue
    fi
    word=${line%%$'\t'*}
    printf -v word '%q' "$word" # a name of the service must not become a part of a command
    COMPREPLY+=("$word")
  done < <("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null </dev/null)
}
complete -F _asr asr autosubmit-runners
