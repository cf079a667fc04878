# shellcheck shell=bash
# Completion of PROGRAM for bash.
_FUNCTION() {
	local line=${COMP_LINE:0:COMP_POINT} words=() piece i cut
	# Bash cuts words at = and : too. What nothing blank parts is one word.
	for ((i = 0; i <= COMP_CWORD; i++)); do
		if [[ $i == 0 || $line == [[:space:]]* ]]; then
			line=${line#"${line%%[![:space:]]*}"}
			words+=('')
		fi
		piece=${COMP_WORDS[i]:0:${#line}}
		words[-1]+=$piece
		line=${line#"$piece"}
	done
	# Only the last piece, $2, is replaced by what is chosen.
	cut=${words[-1]%"$2"}
	COMPREPLY=()
	while IFS= read -r line; do
		if [[ $line == :files || $line == :directories ]]; then
			[[ $line == :files ]] && i=-f || i=-d
			mapfile -t COMPREPLY < <(compgen "$i" -- "$2")
			compopt -o filenames 2>/dev/null || :
			return
		fi
		COMPREPLY+=("${line#"$cut"}")
	done < <("$1" __complete "${words[@]:1}" 2>/dev/null)
}
complete -F _FUNCTION PROGRAM
