# shellcheck shell=bash
# Completion of PROGRAM for bash.
_FUNCTION() {
	local word words=() line
	# Bash splits at = and shows it as a word of its own.
	for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
		[[ $word == = ]] || words+=("$word")
	done
	word=${COMP_WORDS[COMP_CWORD]}
	if [[ $word == = ]]; then
		word=
		words+=('')
	fi
	COMPREPLY=()
	while IFS= read -r line; do
		if [[ $line == :files ]]; then
			mapfile -t COMPREPLY < <(compgen -f -- "$word")
			compopt -o filenames 2>/dev/null || :
			return
		fi
		COMPREPLY+=("$line")
	done < <("$1" __complete "${words[@]}" 2>/dev/null)
}
complete -F _FUNCTION PROGRAM
