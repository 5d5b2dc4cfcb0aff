# fish completion of asr. Put it into ~/.config/fish/completions/asr.fish, or source it.
function __asr_complete
    set -l before (commandline -opc)
    set -l program $before[1]
    set -e before[1]
    for line in ($program __complete $before (commandline -ct) 2>/dev/null </dev/null)
        if string match -q -- \t'FILES' $line
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c asr -f -a '(__asr_complete)'
complete -c autosubmit-runners -f -a '(__asr_complete)'
