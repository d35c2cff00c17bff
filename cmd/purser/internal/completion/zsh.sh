#compdef purser
# zsh completion of purser: purser completion zsh > "${fpath[1]}/_purser"
_purser() {
    local line
    local -a words_ meanings
    for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ $line == :files ]]; then
            _files
            return
        fi
        [[ -z $line ]] && continue
        words_+=("${line%%$'\t'*}")
        meanings+=("${line/$'\t'/  }")
    done
    compadd -l -d meanings -a -- words_
}
if [[ ${funcstack[1]} == _purser ]]; then
    _purser "$@"
else
    compdef _purser purser
fi
