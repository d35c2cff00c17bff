# fish completion of purser: purser completion fish > ~/.config/fish/completions/purser.fish
function __purser_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l lines ($words[1] __complete $words[2..-1] 2>/dev/null)
    if test "$lines" = :files
        __fish_complete_path (commandline -ct)
        return
    end
    printf '%s\n' $lines
end
complete -c purser -f -a '(__purser_complete)'
