#compdef PROGRAM
# Completion of PROGRAM for zsh.
_FUNCTION() {
	local -a candidates
	candidates=(${(f)"$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
	if [[ ${candidates[1]} == :(files|directories) ]]; then
		[[ $PREFIX == -*=* ]] && compset -P '*='
		if [[ ${candidates[1]} == :files ]]; then _files; else _files -/; fi
	else
		compadd -- "${candidates[@]}"
	fi
}
compdef _FUNCTION PROGRAM
