# Completion of PROGRAM for fish.
function __FUNCTION_complete
	set -l words (commandline -opc)
	set -l word (commandline -ct)
	set -l candidates ($words[1] __complete $words[2..-1] "$word" 2>/dev/null)
	if test "$candidates[1]" = :files
		__fish_complete_path "$word"
	else if test "$candidates[1]" = :directories
		__fish_complete_directories "$word"
	else
		string join -- \n $candidates
	end
end
complete -c PROGRAM -f -a "(__FUNCTION_complete)"
